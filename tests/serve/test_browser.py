"""Both pages in a real browser; skipped where there is none (apt-get install chromium)."""

import csv
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kgl_mm.inspection import Threshold
from kgl_mm.priors import PriorStore
from kgl_mm.serve import inspect_app, repaint_app

from .conftest import as_png, picture


@pytest.fixture
def opened(new_page, served):
    """A function that opens the page of an application."""

    def opened(app, path='/', **kwargs):
        url = served(app)
        page = new_page(url, 'data:', 'blob:', forgiven='status of 400', **kwargs)
        page.on('dialog', lambda dialog: dialog.accept())
        page.goto(url + path)
        until(page, 'window.page && (!page.open || page.state.here)')
        return page

    return opened


def until(page, expression):
    """Wait for an expression of the page, or a function; the pages refuse what playwright itself would wait with."""
    end = time.monotonic() + 30
    while not (expression() if callable(expression) else page.evaluate(expression)):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def files(**contents):
    return [dict(name=name.replace('_', '.'), mimeType='', buffer=data) for name, data in contents.items()]


@pytest.fixture
def inspected(opened, inspector):
    """The page of a model, with some images and what is none."""
    page = opened(inspect_app(inspector(), 'my run', ['localhost']), accept_downloads=True)
    evil = dict(name='=<img src=x onerror=document.title=1>.png', mimeType='image/png', buffer=b'no image')
    given = files(bad_png=picture(dark=200), faint_png=picture(dark=120), good_bmp=picture(dark=20, suffix='.bmp'))
    page.set_input_files('#files', [*given, evil, *files(empty_png=b'', notes_txt=b'text')])
    until(page, 'page.state.items.length == 6 && page.state.items.every(i => i.found || i.error)')
    return page


def test_images_get_verdicts_and_everything_else_an_answer(inspected):
    assert inspected.locator('#cards li.bad').count() == 1
    assert inspected.locator('#cards li.good').count() == 2
    assert 'defect 0.784' in inspected.locator('#cards li').nth(0).inner_text()
    assert inspected.locator('#cards li.bad polygon').count() == 1
    assert inspected.locator('#cards li.good polygon').count() == 0
    assert inspected.locator('#cards .fault').count() == 3
    assert 'not a JPEG' in inspected.locator('#cards li').nth(3).inner_text()
    assert 'the file is empty' in inspected.locator('#cards li').nth(4).inner_text()
    assert inspected.locator('#summary').inner_text() == '6 images: 1 defective, 3 could not be inspected, 2 good'
    assert inspected.title() == 'Inspect images'  # a name is text


def test_the_threshold_moves_all_verdicts(inspected):
    inspected.locator('#exact').fill('0.4')
    assert inspected.locator('#cards li.bad').count() == 2
    assert inspected.locator('#cards li.bad polygon').count() == 2
    inspected.locator('#slider').focus()
    inspected.keyboard.press('End')
    assert inspected.locator('#cards li.bad').count() == 0
    inspected.keyboard.press('Home')
    assert inspected.locator('#cards li.bad').count() == 3
    assert 'That of the model is 0.500' in inspected.locator('#origin').inner_text()
    inspected.locator('#filter').select_option('good')
    assert inspected.locator('#cards li:visible').count() == 0
    inspected.locator('#chosen').click()
    assert inspected.locator('#cards li:visible').count() == 2


def test_a_threshold_that_nothing_reaches_is_that_of_the_model(opened, inspector):
    found = inspector()
    found.judge = found.network.judge = replace(
        found.judge, threshold=Threshold(float(np.nextafter(1, 2)), True, 'cost')
    )
    page = opened(inspect_app(found, '', ['localhost']))
    page.set_input_files('#files', files(black_png=picture(dark=255)))
    until(page, 'page.state.items.length == 1 && page.state.items[0].found')
    assert page.locator('#cards li.good').count() == 1
    page.locator('#exact').fill('1')
    assert page.locator('#cards li.bad').count() == 1
    page.locator('#chosen').click()
    assert page.locator('#cards li.good').count() == 1
    assert 'This is the threshold of the model' in page.locator('#origin').inner_text()


def test_results_are_downloaded_as_they_stand(inspected):
    inspected.locator('#exact').fill('0.4')
    with inspected.expect_download() as loading:
        inspected.locator('#csv').click()
    rows = list(csv.DictReader(io.StringIO(loading.value.path().read_text())))
    assert [row['image'] for row in rows][:3] == ['bad.png', 'faint.png', 'good.bmp']
    assert rows[3]['image'].startswith("'=<img")
    assert [row['label'] for row in rows] == ['defect', 'defect', 'good', '', '', '']
    assert [row['threshold'] for row in rows[:2]] == ['0.4', '0.4']
    assert rows[0]['boxes'] == '10 8 30 16'
    assert float(rows[0]['score']) == pytest.approx(200 / 255, abs=1e-6)
    assert all(row['error'] for row in rows[3:])
    with inspected.expect_download() as loading:
        inspected.locator('#json').click()
    found = json.loads(loading.value.path().read_text())
    assert [row.get('defective') for row in found] == [True, True, False, None, None, None]


def test_one_image_is_shown_large(inspected):
    inspected.locator('#cards li button').first.click()
    assert 'score 0.784' in inspected.locator('#verdict').inner_text()
    assert '10, 8, 30, 16' in inspected.locator('#numbers').inner_text()
    with inspected.expect_download() as loading:
        inspected.locator('#picture').click()
    assert cv2.imread(str(loading.value.path())).shape == (64, 60, 3)
    inspected.keyboard.press('ArrowRight')
    assert inspected.locator('#name').inner_text() == 'faint.png'
    inspected.keyboard.press('Escape')
    assert not inspected.locator('#dialog').is_visible()


def test_the_next_one_is_the_next_that_is_shown(inspected):
    inspected.evaluate('page.state.items.reverse()')
    inspected.locator('#order').select_option('score')
    inspected.locator('#cards li button').first.click()
    assert inspected.locator('#name').inner_text() == 'bad.png'
    inspected.keyboard.press('ArrowRight')
    assert inspected.locator('#name').inner_text() == 'faint.png'


def test_images_and_folders_are_dropped(opened, inspector, tmp_path):
    page = opened(inspect_app(inspector(), '', ['localhost']))
    folder = tmp_path / 'parts/deep'
    folder.mkdir(parents=True)
    for name in ('parts/a.png', 'parts/deep/b.png'):
        (tmp_path / name).write_bytes(picture())
    page.set_input_files('#folder', tmp_path / 'parts')
    until(page, 'page.state.items.length == 2 && page.state.items.every(i => i.found)')
    assert page.evaluate('page.state.items.map(i => i.name).sort()') == ['parts/a.png', 'parts/deep/b.png']
    page.locator('#clear').click()
    assert not page.locator('#results').is_visible()
    page.evaluate(
        """data => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(data)], 'dropped.png'));
            document.dispatchEvent(new DragEvent('drop', {dataTransfer: transfer}));
        }""",
        list(picture()),
    )
    until(page, 'page.state.items.length == 1 && page.state.items[0].found')
    assert page.locator('#cards li.bad').count() == 1
    page.locator('#clear').click()
    dragging = page.context.new_cdp_session(page)
    data = dict(items=[], files=[str(tmp_path / 'parts'), str(tmp_path / 'parts/a.png')], dragOperationsMask=1)
    for kind in ('dragEnter', 'dragOver', 'drop'):
        dragging.send('Input.dispatchDragEvent', dict(type=kind, x=300, y=200, data=data))
    until(page, 'page.state.items.length == 3 && page.state.items.every(i => i.found)')
    assert page.evaluate('page.state.items.map(i => i.name)') == ['a.png', 'parts/a.png', 'parts/deep/b.png']


def test_limits_are_said(opened, inspector):
    page = opened(inspect_app(inspector(), '', ['localhost']))
    page.evaluate('page.state.model.most_files = 2; page.state.model.most_bytes = 1000')
    large = picture() + bytes(1000)
    page.set_input_files('#files', files(a_png=large, b_png=picture(), c_png=picture()))
    until(page, 'page.state.items.length == 2 && page.state.items.every(i => i.found || i.error)')
    assert 'larger than' in page.locator('#cards li').first.inner_text()
    assert '1 of 3 were left out' in page.locator('#limits').inner_text()


def test_a_model_without_a_good_class_shows_kinds_and_no_threshold(opened, inspector):
    page = opened(inspect_app(inspector(tuple('abcdef'), False), '', ['localhost']))
    page.set_input_files('#files', files(a_png=picture()))
    until(page, 'page.state.items.length == 1 && page.state.items[0].found')
    assert not page.locator('#slider').is_visible()
    assert 'f 0.784' in page.locator('#cards').inner_text()
    assert page.locator('#summary').inner_text() == '1 image: 1 f'
    page.locator('#filter').select_option('class:a')
    assert page.locator('#cards li:visible').count() == 0


@pytest.mark.parametrize('width', [360, 1280])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_pages_fit_any_width_and_can_be_read(opened, inspector, gallery, width, scheme):
    options = dict(viewport=dict(width=width, height=800), color_scheme=scheme)
    for app in (inspect_app(inspector(), '', ['localhost']), repaint_app(gallery, ['localhost'])):
        page = opened(app, **options)
        assert page.evaluate('document.documentElement.scrollWidth') <= width
        ink, paper = (page.evaluate(f'getComputedStyle(document.body).{name}') for name in ('color', 'backgroundColor'))
        light = [sum(map(int, colour[4:-1].split(', '))) for colour in (ink, paper)]
        assert abs(light[0] - light[1]) > 450


@pytest.fixture
def painting(opened, gallery):
    return opened(repaint_app(gallery, ['localhost']))


def drag(page, start, end, button='left'):
    """Move over the image, in shares of its width and height."""
    box = page.locator('#top').bounding_box()
    page.mouse.move(box['x'] + start[0] * box['width'], box['y'] + start[1] * box['height'])
    page.mouse.down(button=button)
    page.mouse.move(box['x'] + end[0] * box['width'], box['y'] + end[1] * box['height'], steps=4)
    page.mouse.up(button=button)


def saved(page):
    until(page, "document.getElementById('said').textContent.startsWith('Saved')")


def test_strokes_are_saved_as_a_mask_edited_by_hand(painting, store):
    assert painting.locator('#name').inner_text() == 'bad/d1.png'
    painting.locator('#clear').click()
    drag(painting, (0.2, 0.25), (0.8, 0.25))
    drag(painting, (0.7, 0.25), (0.8, 0.25), button='right')
    painting.locator('#save').click()
    saved(painting)
    found = PriorStore(store.root)
    assert found.is_mask('bad/d1.png')
    assert found.verify().edited == ['evidence/bad/d1.png']
    map = found.read('bad/d1.png')
    assert set(np.unique(map)) == {0, 1}
    assert map[10, 12:38].all()
    assert not map[10, 42:].any()
    assert not map[20:].any()
    np.testing.assert_array_equal(map, np.array(painting.evaluate('[...page.state.mask]')).reshape(40, 60))
    assert 'edited by hand' in painting.locator('#list').inner_text()
    assert '1 edited by hand' in painting.locator('#count').inner_text()
    painting.reload()
    until(painting, 'window.page && page.state.here')
    assert painting.evaluate('page.state.mask.reduce((a, b) => a + b)') == map.sum()
    painting.locator('#revert').click()
    until(painting, "!page.state.here.edited && document.getElementById('revert').disabled")
    assert store.verify() == (5, [], [], [])


def test_the_keyboard_paints_three_maps(painting, store):
    for number in range(3):
        painting.keyboard.press('e')
        drag(painting, (0.4, 0.6), (0.9, 0.6))
        painting.keyboard.press('a')
        drag(painting, (0.1, 0.2), (0.3, 0.2))
        drag(painting, (0.1, 0.9), (0.3, 0.9))
        painting.keyboard.press('z')
        painting.keyboard.press('s')
        saved(painting)
        painting.keyboard.press('n')
        until(painting, f'page.state.here.number == {number + 1}')
    assert len(PriorStore(store.root).verify().edited) == 3
    for name in ('d1', 'd2', 'd0'):
        map = store.read(f'bad/{name}.png')
        assert map[8, 6:18].all()
        assert not map[36].any()


def test_the_list_keeps_the_focus_and_a_map_that_is_being_saved_is_left_without_a_question(painting):
    asked = []
    painting.on('dialog', lambda dialog: asked.append(dialog.message) or dialog.accept())
    painting.locator('#filter').select_option('left')  # which the map leaves as soon as it is saved
    drag(painting, (0.4, 0.6), (0.9, 0.6))
    painting.locator('#list button').nth(1).focus()
    name = painting.locator('#list button').nth(1).get_attribute('title')
    painting.evaluate("document.getElementById('save').click(); document.activeElement.click()")
    until(painting, f"page.state.here.name == '{name}'")
    assert not asked
    until(painting, "!document.querySelector('#list').textContent.includes('edited by hand')")
    assert painting.evaluate('document.activeElement.title') == name


def test_strokes_while_a_map_is_saved_or_loaded_are_not_lost(painting):
    held = []
    painting.route('**/api/maps/0', lambda route: held.append(route), times=1)
    painting.route('**/api/maps/1/heat', lambda route: held.append(route))
    painting.reload()  # a page that is open already may ask past a new route
    until(painting, 'window.page && page.state.here')
    drag(painting, (0.1, 0.2), (0.3, 0.2))
    painting.keyboard.press('s')
    painting.locator('#undo').click()  # on its way
    drag(painting, (0.1, 0.9), (0.3, 0.9))
    until(painting, 'page.state.past.length == 1')
    until(painting, lambda: held)
    held.pop().continue_()
    saved(painting)
    assert painting.locator('#save').is_enabled()

    painting.keyboard.press('s')
    until(painting, '!page.state.dirty')
    asked = []
    painting.on('dialog', lambda dialog: asked.append(dialog.message))
    painting.keyboard.press('n')
    until(painting, lambda: held)
    drag(painting, (0.6, 0.9), (0.8, 0.9))
    held.pop().continue_()
    until(painting, 'page.state.here.number == 1')
    assert len(asked) == 1
    assert 'bad/d1.png is not saved' in asked[0]


def test_a_start_is_taken_from_the_map_and_undone(painting, store):
    before = painting.evaluate('[...page.state.mask]')
    painting.locator('#share').focus()
    for _ in range(3):
        painting.keyboard.press('ArrowRight')
    taken = np.array(painting.evaluate('[...page.state.mask]')).reshape(40, 60)
    assert taken[20:30, 32:48].all()
    painting.locator('#undo').click()
    for _ in range(2):
        painting.locator('#undo').click()
    assert not painting.locator('#undo').is_enabled()
    assert painting.evaluate('[...page.state.mask]') == before
    assert store.verify().edited == []


def test_what_cannot_be_saved_is_said(painting, store):
    drag(painting, (0.1, 0.1), (0.2, 0.2))
    Path(store.root, 'evidence/bad/d1.png.png').write_bytes(b'broken')
    painting.locator('#save').click()
    until(painting, "document.getElementById('said').textContent.startsWith('Not saved')")
    assert 'is damaged' in painting.locator('#said').inner_text()
    assert painting.locator('#save').is_enabled()


def test_a_good_image_and_one_of_nothing_say_what_they_teach(opened, gallery):
    gallery.save(0, as_png(np.zeros((40, 60))))
    page = opened(repaint_app(gallery, ['localhost']), '/#4')
    assert page.locator('#name').inner_text() == 'good/good.png'
    assert 'its target is empty' in page.locator('#said').inner_text()
    page.locator('#filter').select_option('edited')
    page.locator('#list button').first.click()
    until(page, 'page.state.here.number == 0')
    assert 'will not teach where its defect is' in page.locator('#said').inner_text()
