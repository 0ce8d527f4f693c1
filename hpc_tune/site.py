"""Sites: what a cluster has, allows and needs, as one TOML file each.

The user's own files beat those that are shipped. A site is chosen by its name, or by Slurm's ClusterName.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hpc_tune.errors import Fault, SiteError, UsageError
from hpc_tune.experiment.allocation import Directives, Duration, OneLine
from hpc_tune.experiment.directives import directive_faults
from hpc_tune.experiment.duration import format_clock
from hpc_tune.experiment.faults import Faults, describe, faults_of, known_keys, read_toml
from hpc_tune.experiment.nearest import did_you_mean

__all__ = [
    "Environment",
    "Partition",
    "QosLimits",
    "Site",
    "SiteFile",
    "as_toml",
    "list_sites",
    "load_site",
    "own_sites_dir",
    "site_for_cluster",
]

LONGEST_TEMP_DIR = 45
"""Characters; a socket's path may have 107, and Ray's own part takes some 60."""


def _path(text: str) -> str:
    """Expand ``~`` and variables: the job script quotes paths, so that a shell would not."""
    expanded = os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111  # a name without / stays as it is
    if unset := re.search(r"\$\{?\w+\}?", expanded):
        raise ValueError(f"{unset[0]} is not set here, got {text!r}")
    return expanded


def _no_option(text: str) -> str:
    if text.startswith("-"):
        raise ValueError(f"begins with a dash: it would be taken for an option, got {text!r}")
    return text


Word = Annotated[OneLine, AfterValidator(_no_option)]
ExpandedPath = Annotated[OneLine, AfterValidator(_path), AfterValidator(_no_option)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Environment(_Section):
    """How a job's processes get their software. Set up in this order: setup, modules, conda or venv, variables."""

    setup: list[str] = []
    """Shell lines, run first and as they are written."""
    modules: list[Word] = []
    conda: ExpandedPath | None = None
    """A conda environment's name or path."""
    venv: ExpandedPath | None = None
    container: ExpandedPath | None = None
    """An Apptainer image; every process of ours then runs in it."""
    container_options: list[OneLine] = []
    python: ExpandedPath | None = None
    """Left out: the interpreter that ran the command; in a container, conda or venv environment theirs."""
    variables: dict[str, OneLine] = {}

    @model_validator(mode="after")
    def _one_source_of_software(self) -> Environment:
        chosen = [key for key in ("conda", "venv", "container") if getattr(self, key) is not None]
        if len(chosen) > 1:
            raise Faults([Fault("environment", f"{' and '.join(chosen)} exclude each other", "keep one of them")])
        wrong = [name for name in self.variables if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)]
        if wrong:
            raise Faults([Fault(f"environment.variables.{name}", "is not a variable's name") for name in wrong])
        return self


class Partition(_Section):
    """What a partition offers. What is left out is not checked."""

    nodes: int | None = Field(None, ge=1)
    """How many there are."""
    max_nodes: int | None = Field(None, ge=1)
    """How many one job may have."""
    max_time: Duration | None = None
    default_time: Duration | None = None
    cpus_per_node: int | None = Field(None, ge=1)
    gpus_per_node: int | None = Field(None, ge=0)
    gpu_types: list[OneLine] = []
    memory_per_node: int | None = Field(None, ge=1)
    """In MB, as Slurm counts."""
    features: list[OneLine] = []
    """What allocation.constraint can name; for people."""
    qos: list[OneLine] = []
    """Those that jobs here may name; empty: all."""
    preemptible: bool = False
    """Whether jobs of another partition may end jobs here."""


class QosLimits(_Section):
    """Where a QOS differs from its partition."""

    max_time: Duration | None = None
    """Beats the partition's, also upwards."""
    max_nodes: int | None = Field(None, ge=1)
    preemptible: bool = False


class Site(_Section):
    """A cluster's defaults and limits."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    cluster_names: list[OneLine] = []
    """Values of Slurm's ClusterName by which the profile is chosen."""
    partition: OneLine | None = None
    """Left out: the cluster's own default."""
    account: OneLine | None = None
    qos: OneLine | None = None
    runs_dir: OneLine | None = None
    """May hold ``~`` and variables such as ``$SCRATCH``."""
    temp_dir: str = "/tmp"
    """On the nodes: local, and short, since the paths of sockets end after 107 characters."""
    interface: str | None = Field(None, pattern=r"^[A-Za-z0-9._:-]{1,15}$")
    """The network interface that Ray uses, such as ``ib0``."""
    next_attempt: Literal["successor", "requeue", "none"] = "successor"
    """How a job may continue itself: ``scontrol requeue``, ``sbatch`` from within, or not at all."""
    cpus_per_gpu: int | None = Field(None, ge=1)
    """The share of a node's CPUs that comes with a GPU."""
    sbatch: Directives = {}
    """Further directives, as in an experiment's ``[allocation.sbatch]``."""
    partitions: dict[str, Partition] = {}
    qos_limits: dict[str, QosLimits] = {}
    environment: Environment = Environment()

    @field_validator("temp_dir")
    @classmethod
    def _short_and_absolute(cls, path: str) -> str:
        if not path.startswith("/") or not path.isprintable() or len(path) > LONGEST_TEMP_DIR:
            raise ValueError(f"expected an absolute path of at most {LONGEST_TEMP_DIR} characters, got {path!r}")
        return path

    @field_validator("sbatch")
    @classmethod
    def _directives(cls, written: Directives) -> Directives:
        if faults := directive_faults(written, "sbatch"):
            raise Faults(faults)
        return written

    def runs_path(self, environ: Mapping[str, str] | None = None) -> Path | None:
        """Return where runs are kept; None where the profile leaves it open, or names a variable that is not set."""
        if self.runs_dir is None or self.unset_variables(environ):
            return None
        values = os.environ if environ is None else environ
        return Path(_VARIABLE.sub(lambda found: values[found[1]], self.runs_dir)).expanduser()

    def unset_variables(self, environ: Mapping[str, str] | None = None) -> list[str]:
        """Return the variables in ``runs_dir`` that are not set here."""
        values = os.environ if environ is None else environ
        return [f"${name}" for name in _VARIABLE.findall(self.runs_dir or "") if not values.get(name)]


_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True)
class SiteFile:
    """Where a profile is kept."""

    name: str
    path: Path
    own: bool
    """Whether it is the user's, not a shipped one."""

    def load(self) -> Site:
        """Read and check the profile.

        Raises:
            SiteError: with every fault.
        """
        try:
            return Site.model_validate({"name": self.name} | read_toml(self.path))
        except ValidationError as error:
            raise SiteError(self.path, faults_of(error, _fault)) from None
        except Faults as error:
            raise SiteError(self.path, error.faults) from None


def _fault(detail: Mapping[str, Any]) -> Fault:
    path = [str(part) for part in detail["loc"]]
    return describe(detail, ".".join(path), known_keys(Site, path))


def own_sites_dir() -> Path:
    """Return the folder of the user's own profiles; it need not be there."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "hpc-tune" / "sites"


def list_sites() -> list[SiteFile]:
    """Return all profiles by name; of two with one name the user's own."""
    shipped = Path(str(resources.files("hpc_tune_slurm").joinpath("sites")))
    found = {path.stem: SiteFile(path.stem, path, own=False) for path in shipped.glob("*.toml")}
    found |= {path.stem: SiteFile(path.stem, path, own=True) for path in own_sites_dir().glob("*.toml")}
    return [found[name] for name in sorted(found)]


def load_site(name: str) -> Site:
    """Return the profile ``name``.

    Raises:
        UsageError: if there is none.
        SiteError: if it is wrong.
    """
    files = {file.name: file for file in list_sites()}
    if name not in files:
        advice = did_you_mean(name, files)
        raise UsageError(f"there is no site {name!r}; {advice}", hint="see them all with: hpc-tune site list")
    return files[name].load()


def site_for_cluster(cluster_name: str) -> Site | None:
    """Return the profile that knows a cluster's name, the user's own ones first; None when none does.

    Raises:
        SiteError: if one of the user's own is wrong: it might be the one.
    """
    files = sorted(list_sites(), key=lambda file: (not file.own, file.name))
    sites = (file.load() for file in files)
    return next((site for site in sites if cluster_name in site.cluster_names), None)


def as_toml(site: Site) -> str:
    """Return a profile as its file would hold it, without what is left at its default."""
    return "\n".join(_toml_lines(site.model_dump(exclude_defaults=True), "")) + "\n"


def _toml_lines(table: Mapping[str, Any], name: str) -> Iterator[str]:
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if name and (values or not table):
        yield from ("", f"[{name}]")
    for key, value in values.items():
        clock = key.endswith("_time") and isinstance(value, float)
        yield f"{_toml_key(key)} = {_toml_value(format_clock(value) if clock else value)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _toml_lines(value, f"{name}.{_toml_key(key)}" if name else _toml_key(key))


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _toml_value(value: Any) -> str:
    """Write text, numbers, flags and lists of them: TOML spells them as JSON does."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
