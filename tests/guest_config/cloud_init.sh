# Runs cloud-init as a guest's first boot does, on a copy-on-write view of this machine, and writes what
# has changed as a tar file to stdout. Expects namespaces of its own: mounts, host name, processes, network.
#   $1  directory with user-data and meta-data
set -e
mount -t tmpfs tmpfs /run
root=/run/root
mkdir /run/up /run/work "$root"
mount -t overlay overlay -o lowerdir=/,upperdir=/run/up,workdir=/run/work "$root"
mount -t proc proc "$root/proc"
for directory in run tmp dev; do mount -t tmpfs tmpfs "$root/$directory"; done
mknod "$root/dev/null" c 1 3
mknod "$root/dev/urandom" c 1 9

# What a fresh image does not have.
rm -rf "$root/etc/cloud/cloud-init.disabled" "$root/var/lib/cloud" "$root/usr/local/sbin" "$root"/etc/ssh/ssh_host_*
chroot "$root" sh -c 'userdel core; groupdel docker' >&2 || true
mkdir -p "$root/usr/local/sbin" "$root/var/lib/cloud/seed" "$root/etc/cloud/cloud.cfg.d"
cp -r "$1" "$root/var/lib/cloud/seed/nocloud"
printf 'datasource_list: [NoCloud]\ndatasource: {NoCloud: {fs_label: null}}\n' > "$root/etc/cloud/cloud.cfg.d/99-test.cfg"

for stage in 'init --local' 'init' 'single --name cc_runcmd --frequency always'; do
    # Without a network it says so in its exit status; its log tells the rest.
    chroot "$root" sh -c "cloud-init $stage" >&2 || true
done
tar -C /run/up -cf - --exclude=./usr/share .
