#!/bin/sh
# Tries the packages of FOLDER as an operator would, in a clean Debian that is made for it and thrown away: installs them with
# apt, looks at files, users and units, starts a coordinator and an enrolled worker by their units' own command lines, has a
# livepatch checked, upgrades under kept data, removes and purges. try-packages.sh FOLDER, as root; needs 3 GB and some minutes.
#
# systemd does not run there, so what it would do at a start is done by hand: temporary files, user, environment.
set -eu
cd "$(dirname "$0")/.."
folder=$(cd "$1" && pwd)
say() { echo "== $*"; }
trees=${KLP_FARM_TREES:-}
fail() {
    echo "error: $*" >&2
    exit 1
}
[ -d "$trees" ] || fail "KLP_FARM_TREES names no folder of kernel trees; make try-packages sets it"
[ "$(id -u)" = 0 ] || fail "try-packages needs root, for debootstrap and mounts; run it with sudo"
if ! command -v debootstrap >/dev/null; then
    echo "installing with apt: debootstrap" >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap >&2
fi

release=bookworm
work=$(mktemp -d "${TMPDIR:-/var/tmp}/klp-farm-packages.XXXXXX")
root=$work/root
# Whatever still runs in there goes first: its working folder tells.
clean_up() {
    status=$?
    trap - EXIT INT TERM
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/root" 2>/dev/null)" = "$root" ] && kill -KILL "${process#/proc/}" 2>/dev/null || true
    done
    for mount in "$trees" /dev /proc /sys; do
        umount --recursive "$root$mount" 2>/dev/null || umount --lazy "$root$mount" 2>/dev/null || true
    done
    umount "$root" 2>/dev/null || umount --lazy "$root" 2>/dev/null || true
    # Never into what is still mounted.
    rm -rf --one-file-system "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

inside() { chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
# A program of ours, as the unit's user; a command of its own, so that signals reach it.
as_farm() { inside runuser -u klp-farm -- "$@"; }

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $release" | head -n 1)
say "a clean $release in $root, from this machine's own mirror"
debootstrap --variant=minbase "$release" "$root" "${mirror:-http://deb.debian.org/debian/}" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 20 "$work/debootstrap.log" >&2; fail "debootstrap did not come to its end"; }
# The worker's tools get a root of their own, which only a root that is a mount can be changed for.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --bind /dev "$root/dev"
# At the same place, which compile commands name.
mkdir -p "$root$trees"
mount --bind "$trees" "$root$trees"
mount -o remount,bind,ro "$root$trees"
# What an installer writes, and debootstrap doesn't.
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
# No service is started by what apt installs, as in any chroot.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

pack() { mkdir -p "$root/packages" && rm -f "$root"/packages/*.deb && cp "$1"/*.deb "$root/packages/"; }
# With what they recommend: the worker's compilers, and libclang.
install() { inside sh -c 'apt-get install -q -y /packages/*.deb' >"$work/apt.log" 2>&1 || { tail -n 30 "$work/apt.log" >&2; fail "apt could not install the packages"; }; }
installed() { inside dpkg-query -W -f '${Version}' "$1"; }

pack "$folder"
say "installing"
install
first=$(installed klp-coordinator)
for package in klp-coordinator klp-worker klp-farm; do
    [ "$(installed "$package")" = "$first" ] || fail "$package is not installed in version $first"
    inside "$package" --version
    inside test -f "/usr/share/man/man1/$package.1.gz" || fail "no man page of $package"
done
inside dpkg --verify klp-coordinator klp-worker klp-farm | grep -v ' c ' >"$work/verify" || true
[ -s "$work/verify" ] && { cat "$work/verify" >&2; fail "files are not what the packages hold"; }

say "users and units"
inside id klp-farm
inside id klp-farm-tool
for unit in klp-coordinator klp-worker; do
    inside systemd-analyze verify --man=no "/usr/lib/systemd/system/$unit.service" 2>"$work/verify" || { cat "$work/verify" >&2; fail "$unit.service does not verify"; }
    ! grep "$unit" "$work/verify" || fail "$unit.service does not verify"
    [ "$(inside systemctl is-enabled "$unit" || true)" = disabled ] || fail "$unit is enabled before it was set up"
done
inside klp-coordinator --check-config >"$work/config" || fail "the coordinator's configuration can't be used"
inside klp-worker --check-config | grep 'data_dir = "/var/lib/klp-worker"  *# /etc/klp-farm/worker.toml:' || fail "the worker's folder is another"

say "a farm, as its units start it"
inside systemd-tmpfiles --create klp-coordinator.conf klp-worker.conf
[ "$(inside stat -c %U:%a /var/lib/klp-farm)" = klp-farm:750 ] || fail "/var/lib/klp-farm is not klp-farm's"
exec_start() { sed -n 's/^ExecStart=//p' "$root/usr/lib/systemd/system/$1.service"; }
port=7420
printf 'listen = "127.0.0.1:%s"\n' $port >>"$root/etc/klp-farm/coordinator.toml"
inside klp-coordinator init >/dev/null 2>&1 && fail "root may work in the coordinator's folder"
as_farm klp-coordinator init --name localhost --output json >"$work/init.json"
token=$(sed 's/.*"token":"\([^"]*\)".*/\1/' "$work/init.json")

environment="HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8"
start_coordinator() {
    : >"$work/coordinator.out"
    # shellcheck disable=SC2046,SC2086 # lists
    chroot "$root" setpriv --reuid klp-farm --regid klp-farm --init-groups --no-new-privs --inh-caps=-all \
        env -i $environment HOME=/var/lib/klp-farm $(exec_start klp-coordinator) >"$work/coordinator.out" 2>>"$work/coordinator.log" &
    coordinator=$!
    until_true "the coordinator listens" grep -q listening "$work/coordinator.out"
}
start_worker() {
    # shellcheck disable=SC2046,SC2086 # lists
    chroot "$root" env -i $environment $(exec_start klp-worker) 2>>"$work/worker.log" &
    worker=$!
}
stop() {
    kill -TERM "$1"
    wait "$1" || fail "a program did not end well; see $2: $(tail -n 5 "$2")"
}
until_true() {
    what=$1
    shift
    for _ in $(seq 100); do
        "$@" && return
        sleep 0.2
    done
    tail -n 20 "$work"/*.log >&2
    fail "waited in vain until $what"
}
farm() { inside env KLP_FARM_COORDINATOR="https://localhost:$port" KLP_FARM_CA=/packages/ca.pem KLP_FARM_TOKEN="$token" klp-farm "$@"; }
connected() { farm workers --output json | grep -q '"connected":  *true'; }

start_coordinator
cp "$root/var/lib/klp-farm/tls/ca.pem" "$root/packages/ca.pem"
enroll=$(farm enroll packaged | grep klp-worker)
inside sh -c "$enroll"
printf 'coordinator = "https://localhost:%s"\nslots = 2\ntrees = "%s"\n' $port "$trees" >>"$root/etc/klp-farm/worker.toml"
start_worker
until_true "the worker is connected" connected
farm workers

say "a livepatch, from check to compiled source"
farm submit --name lp --mod snd-pcm --conf CONFIG_SND_PCM --file-funcs sound/core/pcm.c snd_pcm_attach_substream \
    --codestreams debian12-6.1 --type native --wait || { tail -n 20 "$work/worker.log" >&2; fail "the livepatch did not succeed"; }
farm get lp -o /tmp/livepatches
farm token create kept --role viewer >/dev/null

say "an upgrade, with the data kept"
./deploy/packages.sh "$work/newer" 999.0.0 >/dev/null
pack "$work/newer"
stop "$worker" "$work/worker.log"
stop "$coordinator" "$work/coordinator.log"
install
[ "$(installed klp-coordinator)" = 999.0.0-1 ] || fail "it was not upgraded"
grep -q "^slots = 2" "$root/etc/klp-farm/worker.toml" || fail "the upgrade lost the configuration"
start_coordinator
start_worker
until_true "the worker is connected again" connected
farm token list | grep -q kept || fail "the upgrade lost data"
farm status lp | grep -q succeeded || fail "the upgrade lost the livepatch"
as_farm klp-coordinator check --online
stop "$worker" "$work/worker.log"
stop "$coordinator" "$work/coordinator.log"

say "removal"
inside apt-get remove -q -y klp-coordinator klp-worker klp-farm >"$work/apt.log" 2>&1 || fail "they can't be removed: $(tail "$work/apt.log")"
[ ! -e "$root/usr/bin/klp-coordinator" ] && [ ! -e "$root/usr/lib/systemd/system/klp-worker.service" ] || fail "programs are left"
[ -e "$root/var/lib/klp-farm/farm.db" ] && [ -e "$root/etc/klp-farm/worker.toml" ] || fail "removal took data or configuration along"
say "purge"
inside apt-get purge -q -y klp-coordinator klp-worker klp-farm >"$work/apt.log" 2>&1 || fail "they can't be purged: $(tail "$work/apt.log")"
left=$(find "$root/var/lib/klp-farm" "$root/var/lib/klp-worker" "$root/etc/klp-farm" "$root/etc/systemd/system" -name '*klp*' 2>/dev/null || true)
[ -z "$left" ] || fail "left behind: $left"
say "all is well: installed $first, upgraded, removed and purged"
