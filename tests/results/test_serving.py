"""The local page that classifies photos."""

import http.client
import io
import json
import socket
import threading

import numpy as np
import pytest
from PIL import Image

from neq.cli import main
from neq.data import open_source
from neq.results import serving
from neq.results.best_network import load_best
from neq.results.prediction import predict
from neq.results.serving import PhotoServer, is_loopback
from tests.results.browser import browser_tab


@pytest.fixture(scope="module")
def photo():
    """A digit as the content of a PNG."""
    content = io.BytesIO()
    pixels = open_source("digits", None, None).image(3).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def server(tiny_run):
    with PhotoServer(load_best(tiny_run), port=0) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server, method="POST", path="/classify", body=None, **headers):
    """The status, headers and content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_a_photo_gets_the_classes_that_predict_gives(server, photo, tiny_run):
    status, _, content = ask(server, body=photo)
    assert status == 200
    with Image.open(io.BytesIO(photo)) as image:
        expected = next(predict(load_best(tiny_run), image))
    named = zip(expected.classes, expected.probabilities, strict=True)
    found = [{"name": name, "probability": share} for name, share in named]
    assert json.loads(content) == {"classes": found}


def test_the_page_holds_all_it_needs_and_allows_nothing_else(server):
    status, headers, content = ask(server, "GET", "/")
    assert status == 200
    page, policy = content.decode(), headers["Content-Security-Policy"]
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert f'<script nonce="{nonce}">' in page
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]
    assert "http://" not in page + policy
    assert "https://" not in page + policy
    assert "mcunet-in0, 10 classes" in page
    assert ask(server, "GET", "/")[2] != content  # the nonce is another one


@pytest.mark.parametrize(
    "path",
    ["/classify", "/config.yaml", "/../config.yaml", "/..%2f..%2fetc/passwd", "//etc/passwd", "/?x", "*"],
)
def test_no_path_is_a_file(server, path):
    status, _, content = ask(server, "GET", path)
    assert status == 404
    assert json.loads(content) == {"error": "there is nothing here"}
    assert ask(server, "POST", "/", body=b"x")[0] == 404


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 415, "it is in no known image format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "it is in no known image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "it is in no known image format"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, 415, "it "),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(server, photo, content, status, reason):
    found, _, answer = ask(server, body=content)
    assert found == status
    assert json.loads(answer)["error"].startswith(reason)
    assert ask(server, body=photo)[0] == 200


def test_half_a_photo_and_one_of_too_many_pixels(server, photo, monkeypatch):
    status, _, answer = ask(server, body=photo[:70])
    assert status == 415
    assert json.loads(answer)["error"].startswith("it cannot be read: ")
    monkeypatch.setattr(serving, "MOST_PIXELS", 63)
    assert ask(server, body=photo)[0] == 413


def test_uploads_are_bounded_before_they_are_read(server, photo, monkeypatch):
    monkeypatch.setattr(serving, "MOST_BYTES", 100)
    status, _, answer = ask(server, body=bytes(3_000_000))
    assert status == 413
    assert "larger than" in json.loads(answer)["error"]
    assert ask(server, Content_Length="9" * 30)[0] == 413
    assert ask(server, Content_Length="-1")[0] == 411
    assert ask(server, Content_Length="5 ")[0] in (411, 400, 415)
    assert ask(server, body=iter([b"ab"]), Transfer_Encoding="chunked")[0] == 411


def test_other_sites_cannot_use_it(server, photo):
    assert ask(server, body=photo, Host=f"evil.example:{server.server_port}")[0] == 421
    assert ask(server, "GET", "/", Host="evil.example")[0] == 421
    assert ask(server, body=photo, Origin="https://evil.example")[0] == 403
    assert ask(server, body=photo, Origin="null")[0] == 403
    own = f"localhost:{server.server_port}"
    assert ask(server, body=photo, Host=own, Origin=f"http://{own}")[0] == 200


def test_other_methods_are_refused(server):
    assert ask(server, "PUT", "/classify", b"x")[0] == 501
    assert ask(server, "OPTIONS", "/classify")[0] == 501


def test_a_client_that_goes_away_leaves_no_line(server, photo, capfd):
    with socket.create_connection(("127.0.0.1", server.server_port)) as client:
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: " + f"localhost:{server.server_port}".encode())
        client.sendall(b"\r\nContent-Length: 1000\r\n\r\nabc")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert ask(server, body=photo)[0] == 200
    assert capfd.readouterr().err == ""


def test_it_listens_on_this_machine_alone(server, tiny_run, capsys):
    assert server.server_address[0] == "127.0.0.1"
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.org")] == [
        *(True, True, True, False, False)
    ]
    assert main(["serve", str(tiny_run), "--port", str(server.server_port)]) == 2
    assert "cannot be used (Address already in use); give another --port" in capsys.readouterr().err
    assert main(["serve", str(tiny_run), "--port", "70000"]) == 2
    assert main(["serve", str(tiny_run / "selection")]) == 2


@pytest.mark.slow
def test_a_photo_in_a_browser(server, photo, tmp_path):
    (tmp_path / "three.png").write_bytes(photo)
    (tmp_path / "none.png").write_text("no image")
    with browser_tab(tmp_path) as tab:
        tab.open(server.url, width=390)
        assert tab.value("document.documentElement.scrollWidth") <= 390
        tab.choose("#file", tmp_path / "three.png")
        tab.until("document.querySelectorAll('#classes tr').length === 5")
        found = tab.value("document.querySelector('#classes').innerText").split()
        expected = json.loads(ask(server, body=photo)[2])["classes"]
        assert found[0] == expected[0]["name"]
        assert np.isclose(float(found[1]), 100 * expected[0]["probability"], atol=0.051)
        assert tab.value("document.querySelector('#photo').naturalWidth") == 8
        assert tab.complaints() == []
        tab.choose("#file", tmp_path / "none.png")
        tab.until("document.querySelector('#error').textContent !== ''")
        error = tab.value("document.querySelector('#error').textContent")
        assert error == "none.png: it is in no known image format"
        assert tab.value("document.querySelectorAll('#classes tr').length") == 0
        addresses = [url for url in tab.requests() if not url.startswith("blob:")]
        assert all(url.startswith((server.url, "about:blank")) for url in addresses)
