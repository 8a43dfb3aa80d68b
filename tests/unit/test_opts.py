"""Options are a public interface: all listed, explained and in the sample."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from oslo_config import cfg, generator

from splitimage_driver import conf

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = ROOT / "etc" / "splitimage" / "splitimage.conf.sample"
OPTIONS = [(group, option) for group, options in conf.list_opts() for option in options]


def test_the_sample_is_current(tmp_path: Path) -> None:
    made = tmp_path / "sample"
    generator.main(["--config-file", str(ROOT / "etc/splitimage/config-generator.conf"),
                    "--output-file", str(made)])
    assert SAMPLE.read_text() == made.read_text(), "run ./run config"


@pytest.mark.parametrize(("group", "option"), OPTIONS,
                         ids=[f"{group}.{option.name}" for group, option in OPTIONS])
def test_an_option_explains_itself(group: str, option: cfg.Opt) -> None:
    assert option.help
    assert option.help.strip()[-1] in ".`", "a help text is sentences"
    assert re.fullmatch(r"[a-z][a-z0-9_]*", option.name)


def test_each_module_of_options_is_listed() -> None:
    modules = {path.stem for path in Path(conf.__file__).parent.glob("*.py")}
    # What is in the configuration of another service is explained there.
    assert modules - {"__init__", "hosted"} == set(conf.MODULES)


def test_defaults_are_valid_and_take_no_file() -> None:
    loaded = conf.load([], files=[])
    for group, option in OPTIONS:
        getattr(getattr(loaded, group), option.dest)


def test_related_options_exist() -> None:
    known = {f"[{group}] {option.name}" for group, option in OPTIONS}
    for group, option in OPTIONS:
        _, _, related = (option.help or "").partition("Related options:")
        named = set(re.findall(r"``(\[\w+\] \w+)``", related))
        assert named <= known, f"[{group}] {option.name}"
