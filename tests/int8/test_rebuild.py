"""Int8 networks by recipe, without the file that they were read from."""

import pytest
import torch

from neq.int8 import Int8Network, write_int8
from neq.networks.build import build_network
from neq.networks.recipe import named_recipe, read_recipe, write_recipe
from neq.networks.safetensors_file import checked_bytes
from neq.networks.weights import load_weights
from neq.utils.errors import UserError
from tests.int8.toys import excited, images


@pytest.fixture
def built(tmp_path):
    """A network that was built from a file, which is gone, with a head of 7 classes."""
    path = tmp_path / "net.safetensors"
    write_int8(path, excited())
    network = build_network("int8:file", 7, weights=str(path))
    path.unlink()
    return network


def test_its_recipe_builds_it_again_and_its_weights_fit(built, tmp_path):
    recipe = named_recipe("int8:file", built, 7)
    write_recipe(tmp_path, recipe)
    found = read_recipe(tmp_path)
    assert (found.classes, found.head) == (7, "fc")
    (tmp_path / "best.safetensors").write_bytes(checked_bytes(built.state_dict()))
    again = found.build()
    load_weights(again, None, str(tmp_path / "best.safetensors"))
    with torch.no_grad():
        assert torch.equal(again(images()), built(images()))
    assert again.describe().images == excited().images
    assert not again.describe().classes


def test_a_damaged_recipe_is_one_line(built, tmp_path):
    write_recipe(tmp_path, named_recipe("int8:file", built, 7))
    text = (tmp_path / "recipe.json").read_text()
    for old, new in (
        ('\\"type\\":\\"maxpool\\"', '\\"type\\":\\"x\\"'),
        ('"int8"', '"int7"'),
        ("256", "255"),
    ):
        assert old in text
        (tmp_path / "recipe.json").write_text(text.replace(old, new))
        with pytest.raises(UserError, match=r"transform 'int8' with|is unknown") as caught:
            read_recipe(tmp_path).build()
        assert "\n" not in str(caught.value)


def test_networks_of_the_catalog_keep_their_recipe_by_name():
    network = build_network("int8:mcunet-in1", 7, weights="none")
    recipe = named_recipe("int8:mcunet-in1", network, 7)
    assert (recipe.net_name, recipe.transforms) == ("int8:mcunet-in1", ())
    assert isinstance(network, Int8Network)
