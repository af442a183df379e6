"""The model zoo's checkpoints load, and the networks then compute what the zoo's own modules compute."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from neq.config import network
from neq.networks import mcunet_zoo
from neq.networks.build import build_network
from neq.networks.recipe import named_recipe
from neq.utils.errors import UserError

# The networks that the zoo publishes, by our names; mbv2 and proxyless have a feature mix there.
ZOO = [*(f"mcunet-in{n}" for n in range(5)), "mbv2-w0.35_mix", "proxyless-w0.3_mix"]


def conv_config(name, inputs, outputs, kernel, **options):
    shape = {"in_channels": inputs, "out_channels": outputs, "kernel_size": kernel}
    return {"name": name, **shape, "act_func": "relu6", **options}


def zoo_config(entry, eps):
    """The table of a network in the form of the zoo's JSON files."""
    channels, blocks = entry.first, []
    for expansion, outputs, stride, kernel in entry.rows:
        conv = conv_config("MBInvertedConvLayer", channels, outputs, kernel)
        shortcut = {"name": "IdentityLayer", "in_channels": channels, "out_channels": channels}
        blocks.append(
            {
                "mobile_inverted_conv": {**conv, "stride": stride, "expand_ratio": expansion},
                "shortcut": shortcut if stride == 1 and channels == outputs else None,
            }
        )
        channels = outputs
    mix = entry.feature_mix
    return {
        "bn": {"momentum": 0.1, "eps": eps, "ws_eps": None},
        "first_conv": conv_config("ConvLayer", 3, entry.first, 3, stride=2),
        "blocks": blocks,
        "feature_mix_layer": conv_config("ConvLayer", channels, mix, 1) if mix else None,
        "classifier": {"name": "LinearLayer", "in_features": mix or channels, "out_features": 1000},
    }


def zoo_network(name, eps):
    """A network of the package's own modules, every value of it drawn at random, in eval mode."""
    networks = pytest.importorskip("mcunet.tinynas.nn.networks", reason="the package mcunet is not installed")
    torch.manual_seed(1)
    built = networks.ProxylessNASNets.build_from_config(zoo_config(network(name), eps)).eval()
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.uniform_(tensor, -0.5, 0.5)
    return built


def saved(there, folder, name):
    path = folder / f"{network(name).zoo}.pth"
    torch.save({"state_dict": there.state_dict()}, path)
    return path


def eps_of(name):
    return 1e-5 if name.startswith("mcunet") else 1e-3


def outputs(built):
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        return built.eval()(images)


@pytest.mark.parametrize("name", ZOO)
def test_a_checkpoint_of_the_zoo_computes_what_it_computed_there(name, tmp_path, caplog):
    there = zoo_network(name, eps_of(name))
    file = saved(there, tmp_path, name)
    here = build_network(f"pre_trained_{name}", 1000, weights=str(file))
    torch.testing.assert_close(outputs(here), outputs(there), rtol=1e-5, atol=1e-5)
    assert not caplog.records


@pytest.mark.parametrize("name", ["mbv2-w0.35", "proxyless-w0.3"])
def test_the_graphs_without_the_feature_mix_take_the_body(name, tmp_path, caplog):
    there = zoo_network(f"{name}_mix", 1e-3)
    file = saved(there, tmp_path, name)
    here = build_network(f"pre_trained_{name}", 10, weights=str(file))
    there.feature_mix_layer = None
    there.classifier = here.classifier
    torch.testing.assert_close(outputs(here), outputs(there), rtol=1e-5, atol=1e-5)
    assert "its feature mix is left out, this network has none; its head (1000x" in caplog.text
    assert len(caplog.records) == 1


def test_a_plain_name_takes_the_file_and_names_the_network_that_fits_better(tmp_path, caplog):
    there = zoo_network("mcunet-in1", 1e-3)
    file = saved(there, tmp_path, "mcunet-in1")
    here = build_network("mcunet-in1", 1000, weights=str(file))
    torch.testing.assert_close(outputs(here), outputs(there), rtol=1e-5, atol=1e-5)
    assert "net_name pre_trained_mcunet-in1 has their input range and norms too" in caplog.text
    own = tmp_path / "own.pth"
    torch.save(here.state_dict(), own)
    caplog.clear()
    build_network("mcunet-in1", 1000, weights=str(own))
    assert not caplog.records


def test_a_network_that_is_built_again_by_its_recipe_is_the_same(tmp_path):
    there = zoo_network("mcunet-in0", 1e-5)
    file = saved(there, tmp_path, "mcunet-in0")
    here = build_network("pre_trained_mcunet-in0", 10, weights=str(file))
    again = named_recipe("pre_trained_mcunet-in0", here, 10).build()
    again.load_state_dict(here.state_dict())
    assert torch.equal(outputs(again), outputs(here))


class Release(SimpleHTTPRequestHandler):
    """Serves a folder and counts what is asked for."""

    asked: list[str]

    def __init__(self, *arguments, asked, **options):
        self.asked = asked
        super().__init__(*arguments, **options)

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def release(tmp_path, monkeypatch):
    """The folder that the zoo serves, and the paths that it was asked for."""
    folder, asked = tmp_path / "release", []
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Release, directory=str(folder), asked=asked))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(mcunet_zoo, "RELEASE", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    yield folder, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_pretrained_name_downloads_its_checkpoint_once(release, tmp_path, caplog):
    folder, asked = release
    there = zoo_network("mcunet-in0", 1e-5)
    saved(there, folder, "mcunet-in0")
    first = build_network("pre_trained_mcunet-in0", 10, seed=3)
    again = build_network("pre_trained_mcunet-in0", 10, seed=3)
    assert asked == ["/mcunet-10fps_imagenet.pth"]
    assert [path.name for path in (tmp_path / "cache" / "checkpoints").iterdir()] == [
        "mcunet-10fps_imagenet.pth"
    ]
    assert not caplog.records
    there.classifier = first.classifier
    torch.testing.assert_close(outputs(first), outputs(there), rtol=1e-5, atol=1e-5)
    drawn = build_network("mcunet-in0", 10, seed=3)
    assert torch.equal(first.classifier.weight, drawn.classifier.weight)
    assert torch.equal(outputs(first), outputs(again))


def test_a_checkpoint_that_is_not_there_is_one_clear_line(release, tmp_path):
    for way in ("missing", "refused"):
        if way == "refused":
            mcunet_zoo.RELEASE = "http://127.0.0.1:9"  # put back by the fixture
        with pytest.raises(UserError) as caught:
            build_network("pre_trained_mcunet-in0", 10)
        line = str(caught.value)
        assert "\n" not in line
        file = tmp_path / "cache" / "checkpoints" / "mcunet-10fps_imagenet.pth"
        assert f"could not be loaded from {mcunet_zoo.RELEASE}/mcunet-10fps_imagenet.pth (" in line
        assert f"put that file at {file}, give weights FILE, or weights none" in line
        assert not list(file.parent.iterdir())


def test_what_is_no_checkpoint_is_one_clear_line(release, tmp_path):
    (release[0] / "mcunet-10fps_imagenet.pth").write_bytes(b"<html>sign in</html>")
    with pytest.raises(
        UserError, match=r"mcunet-10fps_imagenet.pth cannot be read .*; remove it, and it is"
    ) as caught:
        build_network("pre_trained_mcunet-in0", 10)
    assert "\n" not in str(caught.value)


def test_none_starts_a_network_of_the_zoo_at_random(release):
    plain = build_network("mcunet-in0", 10, seed=3).state_dict()
    none = build_network("pre_trained_mcunet-in0", 10, seed=3, weights="none").state_dict()
    assert all(torch.equal(plain[name], none[name]) for name in plain)
    assert not release[1]


def test_the_weights_bring_their_input_range():
    assert network("pre_trained_mcunet-in0").mean_std.mean == (0.5, 0.5, 0.5)
    assert network("mcunet-in0").mean_std is None
