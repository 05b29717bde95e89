"""Which files of a repository make the model."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ManifestError, NotInRegistry
from corral.registry.hub_files import HubFile
from corral.registry.pick import Picked, pick
from corral.registry.quants import DEFAULT_ORDER


def repo(*paths: str) -> list[HubFile]:
    return [HubFile(path, 10, None, "0" * 40) for path in paths]


def picked(*paths: str, wish: str = "", path: str = "") -> Picked:
    return pick(repo(*paths), where="org/repo", wish=wish, path=path)


def names(found: Picked) -> list[str]:
    return [file.path for file in found.weights]


def test_default_is_q4_k_m_and_says_what_else_there_is() -> None:
    """Without a wish Q4_K_M is taken, and the note names the others."""
    found = picked("m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-IQ2_XXS.gguf", "README.md")
    assert names(found) == ["m-Q4_K_M.gguf"]
    assert found.quantization == "Q4_K_M"
    assert found.notes == ("took Q4_K_M by default; there is also Q8_0, IQ2_XXS",)


def test_latest_means_the_default() -> None:
    """`latest` is no quantization."""
    assert names(picked("m-Q8_0.gguf", "m-Q4_0.gguf", wish="latest")) == ["m-Q4_0.gguf"]


def test_only_file_needs_no_label_and_no_note() -> None:
    """A repository with one GGUF file has nothing to choose."""
    found = picked("anything.gguf", "README.md")
    assert (names(found), found.notes, found.quantization) == (["anything.gguf"], (), "")


@given(st.sets(st.sampled_from(DEFAULT_ORDER), min_size=1), st.randoms(use_true_random=False))
def test_default_follows_the_order_whatever_the_listing(labels: set[str], chance: random.Random) -> None:
    """The default is the first of the documented order that is there, in whatever order the server lists files."""
    paths = [f"m-{label}.gguf" for label in sorted(labels)]
    chance.shuffle(paths)
    first = min(labels, key=DEFAULT_ORDER.index)
    assert names(picked(*paths)) == [f"m-{first}.gguf"]


@given(st.sets(st.sampled_from(DEFAULT_ORDER), min_size=1), st.data())
def test_wish_gives_exactly_what_was_wished(labels: set[str], data: st.DataObject) -> None:
    """Of any set of quantizations, the one asked for is taken, in either case."""
    wish = data.draw(st.sampled_from(sorted(labels)))
    assert names(picked(*(f"m.{label.lower()}.gguf" for label in labels), wish=wish)) == [f"m.{wish.lower()}.gguf"]


def test_beginning_of_a_label_takes_the_best_of_those_it_fits() -> None:
    """A wish that is no label of its own stands for those it begins, by the order of defaults, and a note says so."""
    found = picked("m-Q4_K_S.gguf", "m-Q4_K_M.gguf", "m-Q5_K_M.gguf", wish="Q4_K")
    assert names(found) == ["m-Q4_K_M.gguf"]
    assert found.notes == ("Q4_K fits several files; took m-Q4_K_M.gguf, not m-Q4_K_S.gguf",)


def test_several_files_of_one_label_take_the_shortest_name() -> None:
    """Of two files with the label asked for, the shorter name is taken and the other is named."""
    found = picked("m-UD-Q4_K_XL.gguf", "m-Q4_K_XL.gguf", wish="q4_k_xl")
    assert names(found) == ["m-Q4_K_XL.gguf"]
    assert "m-UD-Q4_K_XL.gguf" in found.notes[0]


@pytest.mark.parametrize("wish", ["m-special-Q6_K.gguf", "m-special-Q6_K", "M-SPECIAL-q6_k"])
def test_whole_name_of_a_file_may_stand_as_the_tag(wish: str) -> None:
    """A tag may be a file's name, with or without its ending."""
    assert names(picked("m-Q6_K.gguf", "m-special-Q6_K.gguf", wish=wish)) == ["m-special-Q6_K.gguf"]


def test_wish_that_is_not_there_names_what_is() -> None:
    """A quantization that is not there is refused with a list of those that are."""
    with pytest.raises(NotInRegistry) as caught:
        picked("m-Q8_0.gguf", "m-Q4_K_M.gguf", wish="Q2_K")
    assert caught.value.hint == "there is: Q4_K_M, Q8_0"


def test_all_shards_in_order() -> None:
    """All files of a split model are taken, in their order, from its folder."""
    parts = [f"Q4_K_M/m-Q4_K_M-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    found = picked(parts[2], parts[0], "m-Q8_0.gguf", parts[1], wish="Q4_K_M")
    assert names(found) == parts
    assert names(picked(*parts, path=parts[1])) == parts


def test_incomplete_shards_are_refused_by_name_and_passed_over_by_default() -> None:
    """A split model with a file missing is never the default, and asking for it says what is wrong."""
    paths = ["m-Q4_K_M-00001-of-00002.gguf", "m-Q8_0.gguf"]
    assert names(picked(*paths)) == ["m-Q8_0.gguf"]
    with pytest.raises(ManifestError, match="1 of the 2 files"):
        picked(*paths, wish="Q4_K_M")
    with pytest.raises(ManifestError):
        picked(*paths, path=paths[0])


def test_projectors_and_matrices_are_no_models() -> None:
    """mmproj and imatrix files are never taken for the model."""
    found = picked("mmproj-m-Q4_K_M.gguf", "imatrix-Q4_K_M.gguf", "m-Q8_0.gguf")
    assert names(found) == ["m-Q8_0.gguf"]
    assert found.mmproj is not None


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"),
        (["mmproj-F32.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        (["m-mmproj.gguf"], "m-mmproj.gguf"),
        (["other/mmproj-F16.gguf", "mmproj-Q8_0.gguf"], "mmproj-Q8_0.gguf"),
    ],
)
def test_projector_prefers_f16_in_the_models_folder(there: list[str], taken: str) -> None:
    """Of several projectors f16 is taken, and one beside the model before one elsewhere."""
    found = picked("m-Q4_K_M.gguf", *there)
    assert found.mmproj is not None
    assert found.mmproj.path == taken


def test_template_and_licence_come_along() -> None:
    """A repository's chat template and licence belong to the model."""
    found = picked("m-Q4_K_M.gguf", "chat_template.jinja", "LICENSE", "sub/LICENSE", "other.jinja")
    assert [file.path for file in found.files()] == ["m-Q4_K_M.gguf", "chat_template.jinja", "LICENSE"]
    assert picked("m.gguf", "a.jinja", "b.jinja").template is None


def test_safetensors_repository_is_a_directory() -> None:
    """Without GGUF files the safetensors and what configures them are taken; code and other formats are not."""
    found = picked(
        "config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "chat_template.jinja", "LICENSE", "README.md",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
        "consolidated.safetensors", "original/params.json", "onnx/model.onnx", "pytorch_model.bin", "modeling_m.py",
        ".gitattributes",
    )  # fmt: skip
    assert found.format == "safetensors"
    assert names(found) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    others = ["chat_template.jinja", "config.json", "merges.txt", "model.safetensors.index.json", "tokenizer.json"]
    assert [file.path for file in found.others] == [*others, "tokenizer.model"]
    assert found.license is not None
    assert "modeling_m.py" in found.notes[0]


def test_diffusion_pipeline_keeps_its_folders() -> None:
    """A pipeline, told by its model_index.json, is taken with everything below."""
    found = picked("model_index.json", "unet/config.json", "unet/model.safetensors", "vae/model.safetensors")
    assert names(found) == ["unet/model.safetensors", "vae/model.safetensors"]
    assert [file.path for file in found.others] == ["model_index.json", "unet/config.json"]


def test_safetensors_have_no_quantization_to_ask_for() -> None:
    """A wish for a quantization of a safetensors repository is refused, not ignored."""
    with pytest.raises(NotInRegistry, match="no GGUF files"):
        picked("model.safetensors", wish="Q4_K_M")


def test_incomplete_safetensors_are_refused() -> None:
    """A split safetensors model with a file missing is refused."""
    with pytest.raises(ManifestError, match="1 of the 2"):
        picked("model-00001-of-00002.safetensors", "config.json")


def test_one_file_by_its_path() -> None:
    """A path takes that file, of whatever quantization; one that is not there or is no model is refused."""
    files = ("sub/m-Q2_K.gguf", "m-Q4_K_M.gguf", "config.json", "a/x.safetensors")
    assert names(picked(*files, path="sub/m-Q2_K.gguf")) == ["sub/m-Q2_K.gguf"]
    assert names(picked(*files, path="a/x.safetensors")) == ["a/x.safetensors"]
    for path in ("absent.gguf", "config.json"):
        with pytest.raises(NotInRegistry):
            picked(*files, path=path)


def test_repository_without_models_says_what_it_holds() -> None:
    """A repository of another kind is refused with what is in it."""
    with pytest.raises(NotInRegistry) as caught:
        picked("pytorch_model.bin", "model.onnx", "README")
    assert caught.value.hint.startswith("it holds .bin, .onnx;")


@given(
    st.lists(
        st.text("mQ458_KMSL.-/gufjsontx", min_size=1, max_size=30)
        | st.sampled_from(
            ["m-00001-of-00000.gguf", "m-00000-of-00001.gguf", "m-99999-of-99999.gguf", ".gguf", "a/.gguf"]
        ),
        max_size=8,
    ),
    st.sampled_from(["", "Q4_K_M", "K", "-", "(", "latest"]),
)
def test_any_listing_gives_a_model_or_one_of_two_errors(paths: list[str], wish: str) -> None:
    """Whatever names a repository has, the outcome is a model of its own files, or a refusal with a hint."""
    try:
        found = picked(*dict.fromkeys(paths), wish=wish)
    except (NotInRegistry, ManifestError) as error:
        assert error.hint
    else:
        assert found.weights
        assert {file.path for file in found.files()} <= set(paths)
