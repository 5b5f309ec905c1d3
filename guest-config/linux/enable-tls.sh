#!/bin/sh
# Make the Docker engine of this machine listen on a TCP port too, for clients with a certificate of the pool's CA.
# The engine stays reachable through its socket. Run the script again to replace the certificates by newer ones. If the
# engine does not start with them, or the script is interrupted, all files are restored.
#
#   sh enable-tls.sh [--port 2376] [--source DIRECTORY] [--prefix DIRECTORY] [--no-restart]
#   sh enable-tls.sh --remove
#
#   --port        TCP port to listen on; default: 2376
#   --source      directory with ca.pem, server-cert.pem and server-key.pem; default: the script's own
#   --prefix      root of another file system, such as an image; implies --no-restart
#   --no-restart  do not restart the engine
#   --remove      undo it: remove the certificates and the TCP port
set -eu
umask 077

say() { printf '%s\n' "$*"; }
fail() { printf 'enable-tls: %s\n' "$*" >&2; exit 1; }

source_directory=$(dirname -- "$0")
prefix=
port=2376
restart=yes
remove=
while [ $# -gt 0 ]; do
    case $1 in
        --port|--source|--prefix) [ $# -ge 2 ] || fail "$1 needs a value" ;;
    esac
    case $1 in
        --port) port=$2; shift ;;
        --source) source_directory=$2; shift ;;
        --prefix) prefix=$2; restart=; shift ;;
        --no-restart) restart= ;;
        --remove) remove=yes ;;
        *) fail "unknown argument $1" ;;
    esac
    shift
done
case $port in
    ''|*[!0-9]*|??????*) fail "$port is not a TCP port" ;;
esac
{ [ "$port" -ge 1 ] && [ "$port" -le 65535 ]; } || fail "$port is not a TCP port"

directory=/etc/docker/tls
dropins=$prefix/etc/systemd/system/docker.service.d
dropin=$dropins/90-xscontainer-tls.conf

if [ -z "$prefix" ] && [ "$(id -u)" -ne 0 ]; then
    fail "this script must be run by root"
fi

reload() {
    [ -n "$restart" ] || return 0
    systemctl daemon-reload && systemctl restart docker.service
}

# Call a function for each file that this script writes.
each() { # FUNCTION
    for name in ca.pem server-cert.pem server-key.pem; do
        "$1" "$prefix$directory/$name"
    done
    "$1" "$dropin"
}
gone() { rm -f -- "$1" "$1.old" "$1.new"; }

if [ -n "$remove" ]; then
    each gone
    rmdir -- "$prefix$directory" 2>/dev/null || :
    reload
    say "The engine now listens on its socket only."
    exit 0
fi

for name in ca.pem server-cert.pem server-key.pem; do
    [ -s "$source_directory/$name" ] || fail "the file $source_directory/$name is missing or empty"
done

flags="--tlsverify --tlscacert=$directory/ca.pem --tlscert=$directory/server-cert.pem --tlskey=$directory/server-key.pem"
# All addresses. With IPv6 in the kernel, the address for IPv6 serves IPv4 too.
inet6=$prefix/proc/net/if_inet6
[ -e "$inet6" ] || inet6=/proc/net/if_inet6
if grep -q . "$inet6" 2>/dev/null; then # not -s: files in /proc have no size
    host="tcp://[::]:$port"
else
    host="tcp://0.0.0.0:$port"
fi

# dockerd refuses an option that is both on its command line and in daemon.json.
config=$prefix/etc/docker/daemon.json
if [ -f "$config" ] && grep -Eq '"(hosts|tls|tlsverify|tlscacert|tlscert|tlskey)"[[:space:]]*:' "$config"; then
    fail "/etc/docker/daemon.json has keys for \"hosts\" or TLS. Remove these keys and run this script again. Or
    add \"$host\" to \"hosts\", copy the three .pem files to $directory, and set \"tlsverify\": true,
    \"tlscacert\", \"tlscert\" and \"tlskey\" there."
fi

unit=
for path in /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system \
            /lib/systemd/system; do
    if [ -f "$prefix$path/docker.service" ]; then
        unit=$prefix$path/docker.service
        break
    fi
done
[ -n "$unit" ] || fail "there is no docker.service of systemd. Copy the three .pem files to $directory and start dockerd
    with: -H $host $flags"

# The command without this script: the last ExecStart of the unit and its other drop-ins, continued lines joined.
set -- "$unit"
for path in "$(dirname -- "$unit")/docker.service.d" "$dropins"; do
    for file in "$path"/*.conf; do
        if [ -f "$file" ] && [ "$file" != "$dropin" ]; then
            set -- "$@" "$file"
        fi
    done
done
command=$(awk '
    { line = line $0 }
    /\\$/ { sub(/\\$/, " ", line); next }
    line ~ /^[[:space:]]*ExecStart[[:space:]]*=/ {
        sub(/^[^=]*=[[:space:]]*/, "", line)
        if (line != "") { command = line }
    }
    { line = "" }
    END { print command }
' "$@")
[ -n "$command" ] || fail "$unit has no ExecStart"
case " $command" in
    *' --tls'*) fail "docker.service starts dockerd with TLS options of its own. Remove them and run this script again." ;;
    *' -H '*|*' --host'*|*' -H='*) ;;
    # Without any -H dockerd listens on its usual socket, with one only there.
    *) command="$command -H unix:///var/run/docker.sock" ;;
esac

# Old files are kept beside the new ones until the engine has started.
keep() { if [ -e "$1" ]; then cp -p -- "$1" "$1.old"; else rm -f -- "$1.old"; fi; }
put_back() {
    rm -f -- "$1.new"
    if [ -e "$1.old" ]; then mv -f -- "$1.old" "$1"; else rm -f -- "$1"; fi
}
forget() { rm -f -- "$1.old"; }
undo() {
    trap - EXIT
    trap '' HUP INT TERM
    each put_back
    rmdir -- "$prefix$directory" "$dropins" 2>/dev/null || :
    [ -z "$restarted" ] || reload || say "The engine does not start with the restored files either: see 'journalctl -u docker.service'."
}

# Write under another name first: a file is either the old or the new one, never a part.
put() { # SOURCE NAME MODE
    cp -- "$1" "$prefix$directory/$2.new"
    chmod "$3" "$prefix$directory/$2.new"
    mv -f -- "$prefix$directory/$2.new" "$prefix$directory/$2"
}
restarted=
mkdir -p -- "$prefix$directory" "$dropins"
chmod 700 "$prefix$directory"
chmod 755 "$dropins"
each keep
trap undo EXIT
trap 'exit 1' HUP INT TERM
put "$source_directory/ca.pem" ca.pem 644
put "$source_directory/server-cert.pem" server-cert.pem 644
put "$source_directory/server-key.pem" server-key.pem 600

{
    say "# Written by xscontainer's enable-tls.sh; 'enable-tls.sh --remove' undoes it."
    say "[Service]"
    say "ExecStart="
    say "ExecStart=$command -H $host $flags"
} > "$dropin.new"
chmod 644 "$dropin.new"
mv -f -- "$dropin.new" "$dropin"
if [ -z "$prefix" ] && command -v restorecon >/dev/null 2>&1; then
    restorecon -R "$directory" "$dropins" || :
fi

restarted=$restart
reload || fail "the engine does not start with TLS, so all files were restored: 'journalctl -u docker.service' says why."
trap - EXIT
each forget

say "The engine now listens on port $port, for clients with a certificate of the pool's CA."
if command -v firewall-cmd >/dev/null 2>&1; then
    say "Open the port to the hosts of the pool: firewall-cmd --permanent --add-port=$port/tcp && firewall-cmd --reload"
elif command -v ufw >/dev/null 2>&1; then
    say "Open the port to the hosts of the pool: ufw allow from HOST to any port $port proto tcp"
fi
