#!/bin/sh
# Has the Docker engine of this machine listen on a TCP port as well, for clients with a certificate of the pool's CA.
# It stays reachable through its socket as before. Run again with newer certificates, it replaces the old ones; if the
# engine does not start with them, or this is cut off, all is put back as it was.
#
#   sh enable-tls.sh [--port 2376] [--source DIRECTORY] [--prefix DIRECTORY] [--no-restart]
#   sh enable-tls.sh --remove
#
#   --source   where ca.pem, server-cert.pem and server-key.pem are; default: beside this script
#   --prefix   the root of another file system, an image for instance; implies --no-restart
#   --remove   undo it
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
    ''|*[!0-9]*|??????*) fail "$port is no TCP port" ;;
esac
{ [ "$port" -ge 1 ] && [ "$port" -le 65535 ]; } || fail "$port is no TCP port"

directory=/etc/docker/tls
dropins=$prefix/etc/systemd/system/docker.service.d
dropin=$dropins/90-xscontainer-tls.conf

if [ -z "$prefix" ] && [ "$(id -u)" -ne 0 ]; then
    fail "this must be run by root"
fi

reload() {
    [ -n "$restart" ] || return 0
    systemctl daemon-reload && systemctl restart docker.service
}

# All that is put here.
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
    say "The engine listens on its socket only."
    exit 0
fi

for name in ca.pem server-cert.pem server-key.pem; do
    [ -s "$source_directory/$name" ] || fail "there is no $source_directory/$name"
done

flags="--tlsverify --tlscacert=$directory/ca.pem --tlscert=$directory/server-cert.pem --tlskey=$directory/server-key.pem"
# All addresses; the one for IPv6 serves IPv4 as well, where the kernel knows IPv6.
inet6=$prefix/proc/net/if_inet6
[ -e "$inet6" ] || inet6=/proc/net/if_inet6
if grep -q . "$inet6" 2>/dev/null; then # not -s: what is in /proc has no size
    host="tcp://[::]:$port"
else
    host="tcp://0.0.0.0:$port"
fi

# What dockerd refuses to have said twice, on its command line and in its file.
config=$prefix/etc/docker/daemon.json
if [ -f "$config" ] && grep -Eq '"(hosts|tls|tlsverify|tlscacert|tlscert|tlskey)"[[:space:]]*:' "$config"; then
    fail "/etc/docker/daemon.json sets \"hosts\" or TLS itself. Remove those keys there and run this again; or add
    \"$host\" to its \"hosts\", copy the three .pem files to $directory and set \"tlsverify\": true,
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
[ -n "$unit" ] || fail "systemd has no docker.service here. Copy the three .pem files to $directory and start dockerd
    with: -H $host $flags"

# The command as it is without us: the last one that the unit and its drop-ins set, continued lines joined.
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
[ -n "$command" ] || fail "$unit does not say how dockerd is started"
case " $command" in
    *' --tls'*) fail "docker.service starts dockerd with TLS options of its own. Remove them and run this again." ;;
    *' -H '*|*' --host'*|*' -H='*) ;;
    # Without any, dockerd listens on its usual socket; with one, on that alone.
    *) command="$command -H unix:///var/run/docker.sock" ;;
esac

# What is there is kept beside it until the engine has started with what is new.
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
    [ -z "$restarted" ] || reload || say "The engine does not start as it did before, either."
}

# Each under another name first: what is there is either the old file or the new one.
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
reload || fail "dockerd does not start like that, so all is as it was: 'journalctl -u docker.service' says why."
trap - EXIT
each forget

say "The engine listens on port $port, for clients with a certificate of the pool's CA."
if command -v firewall-cmd >/dev/null 2>&1; then
    say "Open the port for the hosts of the pool: firewall-cmd --permanent --add-port=$port/tcp && firewall-cmd --reload"
elif command -v ufw >/dev/null 2>&1; then
    say "Open the port for the hosts of the pool: ufw allow from HOST to any port $port proto tcp"
fi
