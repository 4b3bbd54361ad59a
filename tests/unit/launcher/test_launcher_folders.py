"""What a submission leaves in the run folder, and who may have touched it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import distill
from distill.errors import UserError
from distill.run_dir import JobDir, RunDir
from launcher.entry import Entry
from launcher.guard import check_private
from launcher.site import Site, load_site
from launcher.snapshot import code_digest, environment, take_snapshot

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def job(tmp_path: Path) -> JobDir:
    folder = RunDir(tmp_path / "run").next_job()
    folder.slurm.mkdir(parents=True, mode=0o700)
    return folder


def test_the_copy_is_what_runs(job: JobDir, tmp_path: Path) -> None:
    """Started as a job starts it, from the folder of the sources, which must not win."""
    digest = take_snapshot(job)
    file = job.code / "distill" / "__init__.py"
    file.write_text(file.read_text() + "\nCOPY = True\n")
    assert code_digest(job.code) != digest
    code = "import distill, launcher; print(distill.COPY, launcher.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(job.code), "PYTHONSAFEPATH": "1"}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(
        argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", str(job.code / "launcher" / "__init__.py")]


def test_the_copy_is_whole_and_says_where_it_came_from(job: JobDir) -> None:
    digest = take_snapshot(job)
    about = json.loads(job.code_json.read_text())
    revision = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert about["revision"] == revision.stdout.strip()
    assert about["digest"] == digest == code_digest(ROOT)
    assert (job.code / "distill" / "demo" / "demo.toml").is_file()
    assert not list(job.code.rglob("__pycache__"))


def test_what_differs_from_the_revision_is_kept(tmp_path: Path) -> None:
    """A repository with a change that is not committed and a file that git does not know."""
    sources = tmp_path / "sources"
    for package in ("distill", "launcher"):
        left_out = shutil.ignore_patterns("__pycache__", "demo", "*.so")
        shutil.copytree(ROOT / package, sources / package, ignore=left_out)
    shutil.copy(ROOT / ".gitignore", sources)  # Python may write __pycache__ there
    git = ("git", "-C", str(sources), "-c", "user.name=x", "-c", "user.email=x@x")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "x")):
        subprocess.run([*git, *words], check=True)
    (sources / "distill" / "errors.py").open("a").write("CHANGED = True\n")
    (sources / "launcher" / "new.py").write_text("")
    job = RunDir(tmp_path / "run").next_job()
    job.root.mkdir(parents=True)
    code = "import sys; from pathlib import Path; from distill.run_dir import JobDir;"
    code += "from launcher.snapshot import take_snapshot; take_snapshot(JobDir(Path(sys.argv[1])))"
    environment = {**os.environ, "PYTHONPATH": str(sources)}
    argv = [sys.executable, "-c", code, str(job.root)]
    subprocess.run(argv, env=environment, cwd=tmp_path, check=True)
    changed = json.loads(job.code_json.read_text())["changed"]
    assert [line.split() for line in changed] == [
        ["M", "distill/errors.py"],
        ["??", "launcher/new.py"],
    ]
    assert "\n+CHANGED = True\n" in job.code_diff.read_text()
    assert (job.code / "launcher" / "new.py").is_file()
    assert "CHANGED" in (job.code / "distill" / "errors.py").read_text()


def test_the_difference_is_kept_as_it_is_whatever_git_is_told_to_show(
    job: JobDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is not UTF-8, colours, and a program of the user's in place of git's own."""
    sources = tmp_path / "sources"
    (sources / "distill").mkdir(parents=True)
    (sources / "distill" / "names.py").write_bytes(b"first\n")
    git = ("git", "-C", str(sources), "-c", "user.name=x", "-c", "user.email=x@x")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "x")):
        subprocess.run([*git, *words], check=True)
    changed = b"J\xfcrgen\n"
    (sources / "distill" / "names.py").write_bytes(changed)
    for name, value in (("color.ui", "always"), ("diff.external", "true")):
        subprocess.run([*git, "config", name, value], check=True)
    monkeypatch.setattr("launcher.snapshot.PACKAGES", ("distill",))
    monkeypatch.setattr(distill, "__file__", str(sources / "distill" / "__init__.py"))
    take_snapshot(job)
    subprocess.run([*git, "checkout", "-q", "."], check=True)
    subprocess.run([*git, "apply", str(job.code_diff)], check=True, cwd=sources)
    assert (sources / "distill" / "names.py").read_bytes() == changed


def test_a_package_that_was_left_half_installed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "~umpy-2.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    found = environment()["packages"]
    assert isinstance(found, dict)
    assert "numpy" in found


def test_secrets_are_not_recorded(job: JobDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_API_TOKEN", "hush")
    monkeypatch.setenv("MY_PASSWORD", "hush")
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    take_snapshot(job)
    recorded = job.environment.read_text()
    assert "hush" not in recorded
    assert json.loads(recorded)["variables"]["NCCL_P2P_DISABLE"] == "1"


def test_the_pickle_holds_a_name_and_a_path() -> None:
    """Nothing of ours is stored by value, and loading it imports nothing heavy."""
    data = cloudpickle.dumps(Entry("/runs/a/job.json"))
    assert len(data) < 200
    assert pickle.loads(data) == Entry("/runs/a/job.json")
    code = f"import pickle, sys; pickle.loads({data!r}); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def guarded(folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "launcher.guard", str(folder)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_folder_of_ones_own_is_trusted(job: JobDir) -> None:
    (job.slurm / "12_submitted.pkl").write_bytes(b"")
    assert guarded(job.root).returncode == 0


@pytest.mark.parametrize("what", [".", "slurm", "slurm/12_submitted.pkl"])
def test_what_others_can_write_is_refused(job: JobDir, what: str) -> None:
    (job.slurm / "12_submitted.pkl").write_bytes(b"")
    (job.root / what).chmod(0o770)
    done = guarded(job.root)
    assert done.returncode == 1
    assert "others may write there (mode 770)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_links_are_refused(job: JobDir) -> None:
    (job.slurm / "12_submitted.pkl").symlink_to("/dev/null")
    with pytest.raises(UserError, match="a link"):
        check_private(job.root)


@pytest.mark.parametrize("name", ["0.pkl", "slurm/0.pkl"])
def test_what_is_renamed_meanwhile_is_no_fault(
    job: JobDir, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The job may begin while `submit` still writes, and ranks of a node copy at the same time."""
    for folder in (job.root, job.slurm):
        (folder / "0.pkl").touch()
    lstat = Path.lstat

    def late(path: Path) -> os.stat_result:
        if path == job.root / name and path.exists():
            path.rename(path.with_name("1.pkl"))
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", late)
    check_private(job.root)
    assert not (job.root / name).exists()
    with pytest.raises(FileNotFoundError):
        check_private(job.root / "nothing")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_what_belongs_to_others_is_refused(job: JobDir) -> None:
    os.chown(job.slurm, 12345, -1)
    with pytest.raises(UserError, match="belongs to user 12345"):
        check_private(job.root)


@given(st.lists(st.sampled_from(["0001", "0002", "0010", "notes", "x", "9999"]), unique=True))
def test_a_fresh_folder_for_each_submission(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder))
        for name in names:
            (run.root / "jobs" / name).mkdir(parents=True)
        fresh = run.next_job()
        assert not fresh.root.exists()
        assert all(int(job.root.name) < int(fresh.root.name) for job in run.jobs())


BAD_SITES = {
    'partition = "a b"': "partition = 'a b': not a name",
    'accounts = ["a b"]': "accounts = 'a b': not a name",
    'qos = "-a"': "qos = '-a': not a name",
    'constraint = "a,b"': "constraint = 'a,b': not a name",
    'exclude = "node[1"': "exclude = 'node[1': not a name",
    'reservation = "a,b"': "reservation = 'a,b': not a name",
    'gpu_type = "h100:8"': "gpu_type = 'h100:8': not a name",
    "exclusive = 3": "exclusive = 3: ",
    'modules_init = "/a\\\\b"': "modules_init = '/a\\\\b': Slurm gives \\",
    'modules = ["cuda; rm"]': "modules = 'cuda; rm': not a name",
    'scratch = "/a%j"': "scratch = '/a%j': Slurm gives %",
    'container = ["a\\nb"]': "container = 'a\\nb': holds a control character",
    'python = "/a\\nb"': "python = '/a\\nb': holds a control character",
    '[variables]\n"A B" = "c"': "variables = 'A B': not a name",
    '[variables]\nA = "b\\nc"': "variables.A = 'b\\nc': holds a control character",
    "partitions = 3": "partitions = 3: ",
    '[partitions.gpu]\nmax_time = "12:30"': "partitions.gpu.max_time = '12:30': not a time limit",
    'patrition = "a"': "patrition = 'a': ",
    "signal_seconds = 1": "signal_seconds = 1: ",
    "x": "cannot be read",
}


@pytest.mark.parametrize("text", BAD_SITES)
def test_a_bad_profile_names_file_and_field(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.toml").write_text(text)
    monkeypatch.setenv("PAIRDISTILL_SITES", str(tmp_path))
    with pytest.raises(UserError) as error:
        load_site("here")
    assert str(tmp_path / "here.toml") in error.value.what
    assert BAD_SITES[text] in error.value.what
    if text.startswith("patrition"):
        assert "partition, " in error.value.fix


def test_the_profiles_that_come_along_can_be_read() -> None:
    names = [path.stem for path in (ROOT / "slurm" / "sites").glob("*.toml")]
    assert names
    for name in names:
        assert load_site(name) != Site()
