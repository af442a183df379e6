import pytest

from neq.cli import main
from neq.config import networks


def cells(out, name):
    (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
    return line.split()


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 160])
def test_networks_are_listed_with_their_figures(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["networks"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for name, entry in networks().items():
        if not entry.pretrained:
            found = cells(out, name)
            assert found[1:3] == [str(entry.input_size), str(entry.convs)]
            assert found[4:6] == [f"{entry.conv_weights:,}", f"{entry.total_weights:,}"]
    assert cells(out, "mbv2")[3] == "17,056"
    assert cells(out, "mbv2")[6:] == ["299.5", "random", "*"]
    assert cells(out, "mbv2-w0.35")[6:] == ["16.6", "random", "*"]
    assert cells(out, "proxyless-w0.3")[6:] == ["18.6", "random", "*"]
    assert cells(out, "mcunet-in1_folded")[6:] == ["22.5", "random"]
    assert "torchvision:NAME and timm:NAME" in out


def test_some_networks_alone(capsys):
    names = ["pre_trained_mobilenet_v3_small", "torchvision:squeezenet1_1", "timm:vit_tiny_patch16_224"]
    assert main(["networks", *names]) == 0
    out = capsys.readouterr().out
    assert cells(out, names[0])[-1] == "pretrained"
    assert cells(out, names[1])[-1] == "random"
    # The patch embedding is its one conv; the Linears of its blocks make up the rest.
    assert cells(out, names[2])[1:6] == ["224", "1", "20,928", "147,456", "5,455,872"]
    assert "mcunet-in0" not in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["networks", "mbv3"], "did you mean 'mbv2'"),
        (["networks", "timm:deit_tiny_distilled_patch16_224"], "has 2 classifier heads"),
        (["networks", "--all"], "neq networks takes names of networks alone, here '--all'"),
        (["datasets", "digits"], "neq datasets takes no arguments, here 'digits'"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, line):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1
