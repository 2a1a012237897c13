import gc
import json
import os
import shutil
import sys

import pytest


def pytest_configure():
    """Yapf writes a cache when it is first imported, which workers that come together would find half written."""
    import yapf  # noqa: F401


@pytest.fixture(autouse=True, scope='session')
def _runners_say_less_of_themselves():
    """What each Runner does for its log takes seconds, and nothing of it is tested.

    It asks every compiler of the machine for its version, and formats its config, again with every checkpoint.
    """
    from mmengine.config import config
    from mmengine.runner import runner
    from yapf.yapflib import yapf_api

    described = runner.collect_env()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, 'collect_env', lambda: described)
        for module in (config, yapf_api):  # one family of mm packages imports it early, the other late
            patch.setattr(module, 'FormatCode', lambda text, **_: (text, True), raising=False)
        yield


@pytest.fixture(autouse=True)
def _a_runner_leaves_no_scope_behind():
    """Else what a test finds in the registries depends on which ones ran before it in its process."""
    from mmengine.registry import DefaultScope

    kept = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict = kept


@pytest.fixture(autouse=True, scope='session')
def _what_is_imported_is_no_garbage(_runners_say_less_of_themselves):
    """Each data set of mmengine collects garbage once, which takes a fifth of a second for half a million objects."""
    if 'mmpretrain' in sys.modules:
        import mmpretrain.models  # noqa: F401 (the largest part, which comes with the first model otherwise)
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _how_checkpoints_load_is_as_it_was():
    """Tools and inspectors allow plain weights alone, from then on and for the whole process."""
    name = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    before = os.environ.get(name)
    yield
    if before is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = before


@pytest.fixture(autouse=True)
def _runners_of_the_same_second_share_nothing():
    """What a Runner logs is named by the second in which it began."""
    from mmengine.logging import MessageHub

    yield
    MessageHub._instance_dict.clear()


@pytest.fixture(scope='session')
def small_clip(tmp_path_factory):
    """A folder with a small CLIP, as open_clip reads one of ``local-dir:FOLDER``, all of its weights at random."""
    open_clip = pytest.importorskip('open_clip', reason='open_clip is not installed')
    torch = pytest.importorskip('torch')
    vision = dict(image_size=32, patch_size=8, layers=4, width=16, head_width=8)
    text = dict(context_length=77, vocab_size=49408, layers=1, width=8, heads=2)
    settings = dict(embed_dim=8, vision_cfg=vision, text_cfg=text)
    folder = tmp_path_factory.mktemp('small_clip')
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=settings, preprocess_cfg={})))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**settings)
        weights = {name: value + 0.3 * torch.randn_like(value) for name, value in model.state_dict().items()}
    torch.save(weights, folder / 'open_clip_pytorch_model.bin')
    return folder


@pytest.fixture(scope='module')
def browser():
    """A Chromium; tests that ask for it are skipped where there is none."""
    playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    found = [shutil.which(name) for name in ('chromium', 'chromium-browser', 'google-chrome')]
    if not any(found):
        pytest.skip('there is no chromium')
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=next(filter(None, found)), args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser):
    """A function that opens an empty page of the browser; what it complains of, or asks of others, fails the test."""
    complaints, pages = [], []

    def new_page(*allowed, forgiven=None, **kwargs):
        page = browser.new_page(**kwargs)
        page.on('console', lambda said: (forgiven and forgiven in said.text) or complaints.append(said.text))
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.on('request', lambda asked: asked.url.startswith(allowed) or complaints.append(asked.url))
        pages.append(page)
        return page

    yield new_page
    for page in pages:
        page.close()
    assert complaints == []
