"""Without the optional packages everything imports, and what needs one names the pip command."""

import subprocess
import sys

import numpy as np
import pytest

from qtts_jax.data.loader import Loader
from qtts_jax.errors import MissingExtraError
from qtts_jax.extras import import_extra
from qtts_jax.training.log import RunLog

# fmt: off
OPTIONAL = [
    "av", "ctranslate2", "faster_whisper", "grain", "huggingface_hub", "matplotlib", "onnxruntime",
    "pesq", "pystoi", "speechmos", "tensorboardX", "_webrtcvad",
]
# fmt: on


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("grain", lambda _: Loader(lambda n: {}, clips=1, digest="", seed=0)),
        ("tensorboardX", RunLog),
        (
            "matplotlib",
            lambda folder: RunLog(folder, tensorboard=False).picture(
                1, "mel", np.zeros((2, 2, 3), np.uint8)
            ),
        ),
    ],
)
def test_a_missing_package_is_one_sentence(module, use, monkeypatch, tmp_path):
    for name in [module, *(m for m in sys.modules if m.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    wanted = rf"the package {module}, which is not installed: `pip install 'qtts_jax\[train\]'`"
    with pytest.raises(MissingExtraError, match=wanted):
        use(tmp_path)


def test_what_an_extra_imports_is_named(monkeypatch, tmp_path):
    (tmp_path / "half_installed.py").write_text("import surely_not_there.deeper")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="The plot needs the package surely_not_there,"):
        import_extra("half_installed", "train", "The plot")


def test_every_module_imports_without_extras():
    script = (
        "import importlib, pkgutil, sys\n"
        f"sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"
        "import convert, qtts_jax\n"
        "for package in (convert, qtts_jax):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            importlib.import_module(module.name)\n"
        "from qtts_jax.data.__main__ import main\n"
        "print(main(['prepare', 'none.jsonl', 'out']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
