#!/bin/sh
# enable-tls.sh in its place, in a mount namespace: /etc is another one, and a systemctl takes notes.
#   enable_tls.sh MEDIUM DIRECTORY STATUS...
# runs it once for each STATUS, which is what its first restart of the engine comes to. What /etc holds then, what was
# said and what was asked for are put into DIRECTORY/1, DIRECTORY/2 ... After each run the medium has newer files.
set -eu
medium=$1
results=$2
shift 2
cp -a /etc/alternatives "$results/alternatives"
mount -t tmpfs tmpfs /etc
mv "$results/alternatives" /etc/alternatives
mkdir -p /etc/systemd/system /etc/bin
printf '[Service]\nExecStart=/usr/sbin/dockerd -H fd://\n' > /etc/systemd/system/docker.service
cat > /etc/bin/systemctl <<'END'
#!/bin/sh
echo "$*" >> /etc/asked
[ "$1" = daemon-reload ] && exit
status=$(cat /etc/status)
echo 0 > /etc/status
exit "$status"
END
chmod 755 /etc/bin/systemctl
PATH=/etc/bin:$PATH
number=0
for first in "$@"; do
    number=$((number + 1))
    echo "$first" > /etc/status
    : > /etc/asked
    status=0
    sh "$medium/enable-tls.sh" --port "$((2375 + number))" > /etc/said 2>&1 || status=$?
    echo "$status" > /etc/status
    cp -a /etc "$results/$number"
    for name in ca.pem server-cert.pem server-key.pem; do
        echo "newer $number" > "$medium/$name"
    done
done
