# Runs Ignition as a guest's first boot does, on a copy-on-write view of this machine, and writes what has
# changed as a tar file to stdout. Expects namespaces of its own: mounts, host name, processes, network.
#   $1  directory with config.ign
#   $2  the program ignition
set -e
mount -t tmpfs tmpfs /run
# The keys are written as the account that they open: it must be able to get there.
chmod 0755 /run
root=/run/root
mkdir /run/up /run/work "$root"
mount -t overlay overlay -o lowerdir=/,upperdir=/run/up,workdir=/run/work "$root"

# What the images have and this machine may not: an account, a group; and what they do not have.
rm -rf "$root"/etc/ssh/ssh_host_* "$root/etc/systemd/network" "$root/etc/NetworkManager"
chroot "$root" sh -c 'userdel core; groupdel docker; groupadd --system docker; useradd --create-home core' >&2 || true
# It labels what it has written as the guest's policy says; there is none here.
mkdir -p "$root/etc/selinux/none" /run/bin
printf 'SELINUX=permissive\nSELINUXTYPE=none\n' > "$root/etc/selinux/config"
printf '#!/bin/sh\nexec cat\n' > /run/bin/setfiles
chmod 0755 /run/bin/setfiles
export PATH="/run/bin:$PATH"
export IGNITION_CONFIG_FILE="$1/config.ign"
for stage in fetch files; do
    "$2" --platform file --stage "$stage" --root "$root" --config-cache /run/cache.json --log-to-stdout >&2
done
tar -C /run/up -cf - --exclude=./usr/share .
