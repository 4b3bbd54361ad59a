"""Runs a whole Slurm inside the namespaces it was started in: `python keeper.py FOLDER`.

munge, MariaDB, slurmdbd, slurmctld, and two nodes, each with a network, a host name and processes
of its own. It must be started as process 1 of a process namespace, with its own network and mounts
(`cluster.py` does that): then the kernel ends everything when it ends, however it ends, and
nothing of it can be left behind.

It prints `ready`, then obeys lines on standard input, answering each with `done`: `crash NODE`,
`start NODE`, `cut NODE`, `join NODE`, `disk full`, `disk free`, `patience short`, `patience long`.
The end of its input ends it. The disk is FOLDER/small, in memory, which all nodes share.

The recipe follows https://slurm.schedmd.com/quickstart_admin.html.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ranks"))
from waiting import PATIENCE_SECONDS, until

NODES = {"node1": "10.88.0.11", "node2": "10.88.0.12"}
HOST = "10.88.0.1"
SLURMD_SECONDS = {"short": 10, "long": 120}  # a busy machine is silent for longer than the former
SMALL_DISK_BYTES = 256 << 20
LEFT_WHEN_FULL_BYTES = 300 << 10  # for logs

SLURM_CONF = """\
ClusterName=pairdistill
SlurmctldHost={host}({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.socket,cred_expire=5
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/run/spool.%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.%n.log
SlurmctldDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout={slurmd_seconds}
KillWait=5
OverTimeLimit=1
CompleteWait=0
MinJobAge=3600
EnforcePartLimits=ALL
MailProg=/bin/true
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={address}
AccountingStoragePass={base}/run/munge.socket
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
GresTypes=gpu
{nodes}
PartitionName=test Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
PartitionName=brief Nodes=ALL PriorityTier=1 MaxTime=2
"""
NODE_LINE = "NodeName={name} NodeAddr={address} CPUs=4 RealMemory=8000 Gres=gpu:2"
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.socket
DbdHost={host}
DbdAddr={address}
SlurmUser=root
PidFile={base}/run/slurmdbd.pid
LogFile={base}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""
DATABASE = """\
CREATE DATABASE IF NOT EXISTS slurm;
CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm.* TO 'slurm'@'127.0.0.1';
"""
NODE_SCRIPT = """\
hostname "$NODE"
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip link set lo up && ip addr add "$ADDRESS/24" dev eth0 && ip link set eth0 up
slurmd -N "$NODE" -D &
wait
"""


class Keeper:
    """The daemons, and the processes that are the nodes."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.host = socket.gethostname().split(".")[0]
        self.values = {"base": base, "host": self.host, "address": HOST}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Bring everything up, in order."""
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge0", "type", "bridge")
        run("ip", "addr", "add", f"{HOST}/24", "dev", "bridge0")
        run("ip", "link", "set", "bridge0", "up")
        run("mount", "--bind", str(self.base / "etc" / "hosts"), "/etc/hosts")
        size = f"size={SMALL_DISK_BYTES}"
        run("mount", "-t", "tmpfs", "-o", size, "small", str(self.base / "small"))
        self.start_munge()
        self.start_database()
        self.daemon("slurmdbd", "-D")
        until(lambda: succeeds("sacctmgr", "-n", "show", "cluster"), "slurmdbd")
        for known in ("cluster pairdistill", "account face", "user root account=face"):
            run("sacctmgr", "-i", "add", *known.split())
        self.daemon("slurmctld", "-D")
        for name in NODES:
            self.start_node(name)
        until(lambda: succeeds("scontrol", "ping"), "slurmctld")
        until(self.nodes_are_idle, "the nodes")

    def write_files(self) -> None:
        """Configuration, keys and devices below the folder."""
        base = self.base
        spools = [f"run/spool.{name}" for name in NODES]
        for name in ("etc", "run", "state", "log", "dev", "db", "small", *spools):
            (base / name).mkdir()
        self.write_slurm_conf("long")
        (base / "etc/cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (base / "etc/gres.conf").write_text(
            f"AutoDetect=off\nNodeName=node[1-2] Name=gpu File={base}/dev/nvidia[0-1]\n"
        )
        database = base / "etc/slurmdbd.conf"
        database.write_text(SLURMDBD_CONF.format(**self.values))
        database.chmod(0o600)
        hosts = [f"{address} {name}" for name, address in NODES.items()]
        hosts = ["127.0.0.1 localhost", f"{HOST} {self.host}", *hosts]
        (base / "etc/hosts").write_text("\n".join(hosts) + "\n")
        (base / "etc/init.sql").write_text(DATABASE)
        (base / "etc/munge.key").write_bytes(os.urandom(1024))
        (base / "etc/munge.key").chmod(0o400)
        for i in range(2):  # /dev/null twice, to be counted as GPUs
            os.mknod(base / f"dev/nvidia{i}", 0o666 | 0o020000, os.makedev(1, 3))

    def write_slurm_conf(self, patience: str) -> None:
        nodes = "\n".join(NODE_LINE.format(name=n, address=a) for n, a in NODES.items())
        more = {"nodes": nodes, "slurmd_seconds": SLURMD_SECONDS[patience]}
        (self.base / "etc/slurm.conf").write_text(SLURM_CONF.format(**self.values, **more))

    def patience(self, how: str) -> None:
        """How long a node may be silent before it is given up."""
        self.write_slurm_conf(how)
        run("scontrol", "reconfigure")

    def daemon(self, *argv: str) -> None:
        """Start something that stays, its output in a log."""
        with (self.base / "log" / f"{Path(argv[0]).name}.out").open("wb") as log:
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_munge(self) -> None:
        """The daemon that vouches for users."""
        places = {
            "key-file": "etc/munge.key",
            "socket": "run/munge.socket",
            "pid-file": "run/munged.pid",
            "log-file": "log/munged.log",
            "seed-file": "run/munged.seed",
        }
        words = [f"--{option}={self.base / place}" for option, place in places.items()]
        self.daemon("munged", "--foreground", "--force", *words)
        until((self.base / "run/munge.socket").exists, "munged")

    def start_database(self) -> None:
        """MariaDB, on an address that nobody outside sees."""
        data = f"--datadir={self.base / 'db'}"
        quick = ("--innodb-flush-log-at-trx-commit=0", "--skip-log-bin")
        install = ("mariadb-install-db", "--no-defaults", "--user=root", "--skip-test-db", data)
        run(*install, "--auth-root-authentication-method=normal")
        self.daemon(
            *("mariadbd", "--no-defaults", "--user=root", "--bind-address=127.0.0.1", data),
            *(f"--socket={self.base / 'run/db.socket'}", f"--init-file={self.base}/etc/init.sql"),
            *("--skip-name-resolve", "--innodb-lock-wait-timeout=900", *quick),
        )
        until(lambda: answers("127.0.0.1", 3306), "mariadbd")

    def start_node(self, name: str) -> None:
        """A process in namespaces of its own, joined to the bridge by a pair of virtual links."""
        separate = ("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
        environment = {**os.environ, "NODE": name, "ADDRESS": NODES[name]}
        with (self.base / "log" / f"{name}.out").open("ab") as log:
            self.nodes[name] = subprocess.Popen(
                ["unshare", *separate, "bash", "-c", NODE_SCRIPT],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        pid, ours = self.nodes[name].pid, network_of("self")
        until(lambda: network_of(pid) != ours, f"the network of {name}")
        # The others know its old address for a while: it has the same when it comes back.
        own = f"02:00:00:00:00:{int(NODES[name].rpartition('.')[2]):02x}"
        run(*f"ip link add to-{name} type veth peer name eth0 address {own} netns {pid}".split())
        run("ip", "link", "set", f"to-{name}", "master", "bridge0", "up")

    def crash(self, name: str) -> None:
        """Every process of a node dies at once, as when its power fails."""
        self.nodes[name].kill()
        self.nodes[name].wait()
        succeeds("ip", "link", "del", f"to-{name}")  # the kernel takes its time for that

    def cut(self, name: str) -> None:
        """Nothing reaches the node any more; its processes live."""
        run("ip", "link", "set", f"to-{name}", "down")

    def disk(self, state: str) -> None:
        """Make the disk as large as it was, or (`full`) hardly larger than what is on it."""
        found = os.statvfs(self.base / "small")
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        size = used + LEFT_WHEN_FULL_BYTES if state == "full" else SMALL_DISK_BYTES
        run("mount", "-o", f"remount,size={size}", str(self.base / "small"))

    def join(self, name: str) -> None:
        """The opposite of `cut`."""
        run("ip", "link", "set", f"to-{name}", "up")

    def nodes_are_idle(self) -> bool:
        """Whether Slurm would give both nodes to a job."""
        argv = ["sinfo", "-h", "-N", "-p", "test", "-o", "%t"]
        states = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
        return states == ["idle"] * len(NODES)

    def obey(self, line: str) -> None:
        """One order from standard input."""
        order, what = line.split()
        orders = {"crash": self.crash, "start": self.start_node, "cut": self.cut, "join": self.join}
        {**orders, "disk": self.disk, "patience": self.patience}[order](what)


def run(*argv: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stdout}{done.stderr}")


def network_of(process: int | str) -> str:
    """Which network a process is in."""
    return str(Path(f"/proc/{process}/ns/net").readlink())


def succeeds(*argv: str) -> bool:
    return (
        subprocess.run(argv, capture_output=True, timeout=PATIENCE_SECONDS, check=False).returncode
        == 0
    )


def answers(address: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def main() -> None:
    base = Path(sys.argv[1])
    os.environ["SLURM_CONF"] = str(base / "etc" / "slurm.conf")
    # MariaDB names its temporary files by process number, which two clusters may have alike.
    os.environ["TMPDIR"] = str(base / "run")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; they end us after it
    keeper = Keeper(base)
    keeper.write_files()
    keeper.start()
    print("ready", flush=True)
    for line in sys.stdin:
        keeper.obey(line)
        print("done", flush=True)


if __name__ == "__main__":
    assert os.getpid() == 1, "start me through cluster.py: I must be process 1 of a namespace"
    main()
