import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from neq.networks.build import build_network
from neq.networks.heads import head_name
from neq.utils.errors import UserError

SMALL = "test_resnet"  # timm's own miniature
REPOSITORY = "models--timm--test_resnet.r160_in1k"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, and a hub that does not answer."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    point_at(monkeypatch, 9)
    return tmp_path


def point_at(monkeypatch, port):
    """The hub is a server of this machine."""
    constants = huggingface_hub.constants
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    url = constants.ENDPOINT + template
    for module in (constants, huggingface_hub.file_download):  # which had a copy once
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", url, raising=False)


@pytest.fixture
def weights(tmp_path_factory):
    """A file of weights as the hub has it, and what is in it."""
    file = tmp_path_factory.mktemp("hub") / "model.safetensors"
    state = timm.create_model(SMALL).state_dict()
    save_file(state, file)
    return file, state


def test_timm_networks_get_a_head():
    network = build_network(f"timm:{SMALL}", 7).eval()
    assert head_name(network) == "fc"
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("mobilevit_xxs", "head.fc"),
        ("vit_tiny_patch16_224", "head"),
        ("vit_small_patch14_dinov2", "head"),  # comes without classes
        ("dla34", "fc"),  # a convolution
        ("caformer_s18", "head.fc.fc2"),
        ("sequencer2d_s", "head.fc"),
    ],
)
def test_the_head_is_found(name, head):
    with torch.device("meta"):
        network = build_network(f"timm:{name}", 7)
    assert head_name(network) == head
    assert network.get_submodule(head).weight.shape[0] == 7


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("deit_tiny_distilled_patch16_224", 2),
        ("crossvit_9_240", 2),
        ("repvit_m1", 2),
        ("volo_d1_224", 2),
    ],
)
def test_a_network_without_exactly_one_head_is_refused(name, heads):
    with torch.device("meta"), pytest.raises(UserError, match=f"'timm:{name}' has {heads} classifier heads"):
        build_network(f"timm:{name}", 7)


def test_without_network_one_clear_line_at_once(cache, monkeypatch):
    # The hub's client would try for most of a minute.
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *_: pytest.fail("the hub's client is asked")
    )
    with pytest.raises(UserError) as caught:
        build_network(f"pre_trained_timm:{SMALL}", 7)
    line = str(caught.value)
    assert "\n" not in line
    assert f"net_name 'pre_trained_timm:{SMALL}' needs timm's weights" in line
    assert str(cache / REPOSITORY / "snapshots" / "main" / "model.safetensors") in line
    assert "weights none" in line


def test_the_file_that_is_named_is_the_one_that_is_read(cache, weights):
    """The way out of the error line: the file, put there by hand."""
    file, state = weights
    place = cache / REPOSITORY / "snapshots" / "main" / "model.safetensors"
    place.parent.mkdir(parents=True)
    shutil.copy(file, place)
    network = build_network(f"pre_trained_timm:{SMALL}", 7).state_dict()
    assert torch.equal(network["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    assert network["fc.weight"].shape[0] == 7


def test_a_damaged_file_is_one_clear_line(cache):
    place = cache / REPOSITORY / "snapshots" / "main" / "model.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half a fi")
    with pytest.raises(UserError, match=r"model.safetensors cannot be read .*remove it") as caught:
        build_network(f"pre_trained_timm:{SMALL}", 7)
    assert "\n" not in str(caught.value)


def test_weights_are_downloaded_into_the_cache(cache, weights, monkeypatch):
    file, state = weights

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()
            self.wfile.write(file.read_bytes())

        def answer(self):
            found = self.path.endswith("/model.safetensors")
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(file.stat().st_size))
            self.send_header("ETag", '"1234"')
            self.send_header("X-Repo-Commit", "c0ffee")
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        point_at(monkeypatch, server.server_port)
        network = build_network(f"pre_trained_timm:{SMALL}", 7).state_dict()
        server.shutdown()
    assert torch.equal(network["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    assert list(cache.glob(f"{REPOSITORY}/snapshots/*/model.safetensors"))


def test_what_timm_does_not_have_is_refused():
    with pytest.raises(UserError, match=r"'timm:resnet19' is unknown; did you mean 'timm:resnet18'"):
        build_network("timm:resnet19", 10)
    with pytest.raises(UserError, match=r"'timm:resnet18.mine': Invalid pretrained tag"):
        build_network("timm:resnet18.mine", 10)
    with pytest.raises(UserError, match="timm has no weights for 'vovnet57a'"):
        build_network("pre_trained_timm:vovnet57a", 10)
