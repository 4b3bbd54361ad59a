#!/bin/sh
# Installs what the Slurm of the tests consists of, where it is missing and can be (root and apt).
# Elsewhere the tests are skipped, and say what they miss.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }

for program in slurmctld slurmd slurmdbd sbatch munged mariadbd mariadb-install-db my_print_defaults ip; do
    have "$program" || missing="${missing:-} $program"
done
if [ -z "${missing:-}" ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! have apt-get; then
    echo "Slurm's test cluster needs root and apt to install:$missing"
    exit 0
fi

# Answers 101 to every service that wants to be started: the tests start what they need themselves.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
echo "installing Slurm, munge and MariaDB for the tests"
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=120 update -q >/dev/null
apt-get -o DPkg::Lock::Timeout=120 install -y -q --no-install-recommends \
    slurmctld slurmd slurm-client munge slurmdbd slurm-wlm-mysql-plugin \
    mariadb-server-core mariadb-client-core iproute2 util-linux >/dev/null
