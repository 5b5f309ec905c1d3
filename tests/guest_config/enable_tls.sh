#!/bin/sh
# enable-tls.sh in its place, in a mount namespace: /etc is another one, and a systemctl takes notes.
#   enable_tls.sh MEDIUM STATUS     STATUS is what the first restart comes to
set -eu
cp -a /etc/alternatives "$1/alternatives"
mount -t tmpfs tmpfs /etc
mv "$1/alternatives" /etc/alternatives
mkdir -p /etc/systemd/system /etc/bin
printf '[Service]\nExecStart=/usr/sbin/dockerd -H fd://\n' > /etc/systemd/system/docker.service
cat > /etc/bin/systemctl <<END
#!/bin/sh
echo "\$*" >> /etc/asked
[ "\$1" = daemon-reload ] || [ -e /etc/again ] || { : > /etc/again; exit $2; }
END
chmod 755 /etc/bin/systemctl
PATH=/etc/bin:$PATH
status=0
sh "$1/enable-tls.sh" || status=$?
cat /etc/asked
find /etc/docker /etc/systemd -type f
exit "$status"
