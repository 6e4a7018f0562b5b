"""The dashboard in a real browser, through the tunnel's HTTPS, logged in, while a sweep trains.

``pytest -n 0 tests/test_dashboard.py --screenshots DIR`` keeps what it saw.
"""

import contextlib
import datetime
import subprocess
import sys
import time

import mlflow
import pytest
from browser import chromium, needs_chromium
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from forwarding import forwarding
from mlflow_behind_tunnel import served
from mlflow_server import free_port
from selenium.common.exceptions import TimeoutException

pytest_plugins = ["browser"]
pytestmark = [needs_chromium, pytest.mark.slow]

NAME = "my-laptop.ngrok-free.app"
CONFIGS = 12


def make_certificate(path):
    """A certificate of our own for NAME, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    certificate = builder.sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    kind = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(encoding, kind, serialization.NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(encoding))
    return path


def patiently(look, seconds=60):
    """What ``look`` gives, once it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not appear"
        time.sleep(0.5)
    return found


def points_shown(browser):
    """How many points the curve with the most has on the page."""
    script = (
        "return Math.max(0, ...[...document.querySelectorAll('path.js-line')]"
        ".map(line => line.getAttribute('d').split(/[ML]/).length - 1))"
    )
    return browser.execute_script(script)


def points_after_reload(browser):
    """The same, of what there is by now."""
    with contextlib.suppress(AssertionError, TimeoutException):  # a page may take its time
        browser.refresh()
        return patiently(lambda: points_shown(browser), seconds=5)
    return 0


def text_of(browser):
    return browser.find_element("tag name", "body").text


def test_the_dashboard_fills_while_a_sweep_trains_elsewhere(tmp_path, screenshots):
    certificate = make_certificate(tmp_path / "tunnel.pem")
    with contextlib.ExitStack() as stack:
        options = ("--domain", NAME, "--port", str(free_port()))
        service = stack.enter_context(served(tmp_path / "data", *options))
        public = stack.enter_context(forwarding(service.local, NAME, certificate))
        to_client = stack.enter_context(forwarding(service.local, NAME))
        browser = stack.enter_context(
            chromium(
                "--ignore-certificate-errors",
                f"--host-resolver-rules=MAP {NAME}:443 127.0.0.1:{public.server_port}",
            )
        )
        user, password = service.login("sweep")
        connection = f"http://{user}:{password}@127.0.0.1:{to_client.server_port}"
        options = ["--configs", str(CONFIGS), "--steps", "100000", "--eval-every", "2000"]
        options += ["--device", "cpu", "--run-dir", str(tmp_path / "my-sweep")]
        command = [sys.executable, "-m", "jaxrl.sweep", *options, "--tracking-uri", connection]
        with (tmp_path / "sweep.log").open("w") as log:
            sweep = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(sweep.kill)

        browser.get(f"https://{NAME}/")
        assert "static-files" not in browser.page_source  # no page before the password
        browser.get(f"https://{user}:{password}@{NAME}/version")  # the login that a person types
        assert text_of(browser) == mlflow.__version__

        client = mlflow.MlflowClient(service.local)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_USERNAME", user)
            patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            experiment = patiently(lambda: client.get_experiment_by_name("jaxrl"))
            number = experiment.experiment_id
            search = "attributes.run_name = 'my-sweep'"
            (parent,) = patiently(lambda: client.search_runs([number], search))
        browser.get(
            f"https://{NAME}/#/experiments/{number}/runs/{parent.info.run_id}/model-metrics"
        )
        early = patiently(lambda: points_after_reload(browser))
        assert sweep.poll() is None  # it is live
        screenshots(browser, "early")
        assert sweep.wait(120) == 0
        patiently(lambda: points_after_reload(browser) > early)
        screenshots(browser, "curves")
        assert "eval_return_best" in text_of(browser)

        browser.get(f"https://{NAME}/#/experiments/{number}/runs")
        patiently(lambda: f"{CONFIGS + 1} matching runs" in text_of(browser))
        assert "my-sweep" in text_of(browser)
        plus = "//a[.='my-sweep']/ancestor::*[@role='gridcell']//button"
        patiently(lambda: browser.find_elements("xpath", plus))[0].click()
        patiently(lambda: "config-0000" in text_of(browser))
        screenshots(browser, "runs")
