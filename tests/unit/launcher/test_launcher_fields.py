"""Nothing that a person or a file says can become a line or a command of a batch script."""

from __future__ import annotations

import os
import shlex
import string
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import UserError
from distill.run_dir import JobDir
from launcher.fields import _ALLOWED, check_path, checked, job_name
from launcher.resources import Resources, minutes
from launcher.script import make_executor
from launcher.site import Site

HARMLESS = set(string.ascii_letters + string.digits + "_.+-/&|*[],")


@given(st.sampled_from(sorted(_ALLOWED)), st.text())
def test_a_field_lets_harmless_words_pass_only(field: str, value: str) -> None:
    try:
        passed = checked(field, value)
    except UserError as error:
        assert f"--{field} = " in error.what
        assert "\n" not in str(error)
        return
    assert passed == value
    assert set(value) <= HARMLESS
    assert not value.startswith("-")


@pytest.mark.parametrize(
    "value", ["a\nb", "a b", "a;b", "$(a)", "`a`", "a'b", 'a"b', "", "-a", "é"]
)
def test_what_shells_read_is_refused(value: str) -> None:
    for field in _ALLOWED:
        with pytest.raises(UserError):
            checked(field, value)


@given(
    st.lists(st.sampled_from(["node7", "a-b.c", "n[1-3]", "n[01,4-6]x", "r[1]n[2-3]"]), min_size=1)
)
def test_hosts_are_written_as_slurm_lists_them(hosts: list[str]) -> None:
    assert checked("exclude", ",".join(hosts)) == ",".join(hosts)


@pytest.mark.parametrize(
    "hosts", ["n,", ",n", "n[", "n[]", "n[1-]", "n[a]", "n]1[", "/a/file", "n,-x"]
)
def test_what_slurm_would_not_read_as_hosts_is_refused(hosts: str) -> None:
    """A word with a slash would name a file of hosts."""
    with pytest.raises(UserError, match=r"--exclude = .*; use hosts as in node7 or node\[1-3,7\]"):
        checked("exclude", hosts)


@given(st.text())
def test_any_text_makes_a_job_name(text: str) -> None:
    name = job_name(text)
    assert name.startswith("pd-")
    assert len(name) <= 51
    assert set(name) <= HARMLESS


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59))
def test_every_form_of_a_time_means_the_same(days: int, hours: int, mins: int) -> None:
    expected = int(timedelta(days=days, hours=hours, minutes=mins).total_seconds() // 60)
    forms = [f"{days}d{hours}h{mins}m", f"{days * 24 + hours}h{mins}min"]
    forms += [f"{days}-{hours:02}:{mins:02}:00"]
    for form in forms:
        if expected:
            assert minutes(form) == expected
        else:
            with pytest.raises(UserError):
                minutes(form)


def test_seconds_count_as_a_minute() -> None:
    assert minutes("00:10:01") == 11
    assert minutes("00:10:00") == 10


@pytest.mark.parametrize(
    "text", ["", "12:30", "24", "1h30", "-1h", "1.5h", "00:61:00", "9999d", "h"]
)
def test_an_unknown_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write it as 24h, 90m, 1d12h or D-HH:MM:SS"):
        minutes(text)


def script(folder: Path, wanted: Resources, site: Site) -> str:
    return make_executor(JobDir(folder), "a name", wanted, site).script_text()


NASTY = [
    "it's",
    'a "quoted"',
    "$(touch pwned)",
    "`touch pwned`",
    "a;touch pwned",
    "#SBATCH --uid=0",
]


@given(
    st.lists(st.sampled_from([*NASTY, "plain"]), min_size=1, max_size=3),
    st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20),
)
def test_the_script_says_what_was_meant(parts: list[str], value: str) -> None:
    """Read back by bash: paths and variables arrive unchanged, and nothing else runs."""
    folder = Path("/nowhere", *parts, "jobs", "0001")
    text = script(folder, Resources(), Site(variables={"MINE": value}))
    lines = text.splitlines()
    flags = [shlex.split(line.removeprefix("#SBATCH ")) for line in lines if line[:8] == "#SBATCH "]
    assert [f"--output={folder}/slurm/%j_0_log.out"] in flags
    assert not [flag for flag in flags if flag[0].startswith("--uid")]
    (export,) = (line for line in lines if line.startswith("export MINE="))
    shown = subprocess.run(
        ["bash", "-c", f'{export}\nprintf %s "$MINE"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout == value


TELLERS = """
tell() { for word in "$@"; do printf "%s|" "$word"; done; echo; }
module() { tell module "$@"; }
srun() { tell srun "$@"; [ -z "$SLURM_CLUSTERS" ] || tell elsewhere; return 7; }
"""


def executed(folder: Path, site: Site) -> subprocess.CompletedProcess[str]:
    """A script that bash has executed, with programs that only tell of themselves."""
    text = script(folder, Resources(nodes=2, ranks_per_node=3), site)
    python = shlex.quote(sys.executable)
    program = TELLERS + text.replace(f"\n{python} ", "\ntell python ")
    return subprocess.run(
        ["bash"],
        input=program,
        env={**os.environ, "SLURM_CLUSTERS": "west,east"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_runs_its_parts_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "it's $(here)" / "jobs" / "0001"
    folder.mkdir(parents=True)
    init = tmp_path / "it's.sh"
    init.write_text('module() { tell defined module "$@"; }')
    site = Site(
        modules_init=str(init),
        modules=["cuda/12.4"],
        container=["apptainer", "exec", "/images/it's.sif"],
    )
    done = executed(folder, site)
    guard, srun, verdict = (line.split("|")[:-1] for line in done.stdout.splitlines()[1:])
    assert done.stdout.startswith("defined|module|load|cuda/12.4|\n")
    assert guard == ["python", "-m", "launcher.guard", str(folder)]
    assert verdict == ["python", "-m", "launcher.inside.verdict", str(folder), "7"]
    assert "--kill-on-bad-exit=1" in srun
    place = srun.index("/images/it's.sif")
    assert srun[place - 2 : place] == ["apptainer", "exec"]
    assert srun[place + 1 : place + 5] == [sys.executable, "-u", "-m", "submitit.core._submit"]
    assert srun[-1] == str(folder / "slurm")


def test_a_container_may_be_an_option_of_srun_and_bring_its_python(tmp_path: Path) -> None:
    """Only the ranks run in it: the guard before them and the verdict after them do not."""
    options = ["--container-image=/i/a b;touch pwned.sqsh", "--container-mounts=/data:/data"]
    done = executed(tmp_path, Site(container=options, python="/opt/it's/python"))
    guard, srun, verdict = (line.split("|")[:-1] for line in done.stdout.splitlines())
    place = srun.index(options[0])
    assert srun[place : place + 4] == [*options, "/opt/it's/python", "-u"]
    assert {guard[0], verdict[0]} == {"python"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_nothing_of_a_folder_that_is_not_ours_is_run(tmp_path: Path) -> None:
    """Whoever can rename the folders above could put one with a guard of his own there."""
    os.chown(tmp_path, 12345, -1)
    done = executed(tmp_path, Site(modules=["cuda/12.4"]))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the job folder is gone, or is not yours\n"


def test_the_signal_is_one_that_ranks_heed_whatever_submitit_is_told(tmp_path: Path) -> None:
    """It reads the variable when it is imported, so in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from distill.run_dir import JobDir;"
        "from launcher.resources import Resources; from launcher.site import Site;"
        "from launcher.script import make_executor;"
        "job = JobDir(Path(sys.argv[1]));"
        "print(make_executor(job, 'x', Resources(), Site(signal_seconds=77)).script_text())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "SUBMITIT_PREEMPT_SIGNAL": "USR1"},
        capture_output=True,
        text=True,
        check=True,
    )
    flags = [line for line in done.stdout.splitlines() if "--signal" in line]
    assert flags == ["#SBATCH --signal=USR2@77"]


def test_empty_means_that_the_cluster_decides(tmp_path: Path) -> None:
    bare = script(tmp_path, Resources(), Site())
    for option in ("partition", "account", "mem", "gpus-per-node", "dependency", "qos", "wckey",
                   "exclude", "exclusive", "reservation"):  # fmt: skip
        assert f"--{option}" not in bare
    wanted = Resources(4, 8, 8, 6, 200, 90, "gpu", "face", "12_3", "node[1-3],big7")
    assert (wanted.world_size, wanted.cpus_per_node) == (32, 48)
    full = script(
        tmp_path,
        wanted,
        Site(
            qos="long",
            constraint="a100|h100",
            signal_seconds=300,
            reservation="face_week",
            exclusive=True,
        ),
    )
    for flag in (
        *("--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=6"),
        *("--mem=200GB", "--time=90", "--partition=gpu", "--account=face", "--qos=long"),
        *("--dependency=afterok:12_3", "--constraint='a100|h100'", "--signal=USR2@300"),
        *("--exclude='node[1-3],big7'", "--exclusive", "--reservation=face_week"),
    ):
        assert f"#SBATCH {flag}\n" in full, flag
    typed = Site(gpu_type="h100")
    assert "#SBATCH --gpus-per-node=h100:8\n" in script(tmp_path, wanted, typed)
    assert "gpus-per-node" not in script(tmp_path, Resources(), typed)


@pytest.mark.parametrize("name", ["a%jb", "a\\b", "a\nb", "a\tb"])
def test_paths_that_slurm_would_change_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"run\.dir = "):
        check_path("run.dir", f"/runs/{name}")
