import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from kgl_mm.apis.train import summary
from kgl_mm.evaluation import functional
from kgl_mm.report import page, report, try_report, write_report
from kgl_mm.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from kgl_mm.report.data import read_run
from kgl_mm.report.facts import _counts, facts_section, training_section
from kgl_mm.report.figures import curves_section
from kgl_mm.report.pictures import Splits
from kgl_mm.report.report import short_names

HOSTILE = [
    '"><script>alert(1)</script>.png',
    "'onerror='alert(2).png",
    '<!-- STYLE -->.png',
    '<\\u002fscript>&amp;.png',
    'ä\u2028ö.png',
    'https:evil.example.png',
]
HOSTILE = [name.replace('/', '') for name in HOSTILE]


class Page(HTMLParser):
    """What is in a page: elements with their attributes, and the text of some."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.elements, self.open, self.text = [], [], {}
        self.feed(path.read_text('utf-8'))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open.append((tag, dict(attributes).get('id')))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for place in self.open:
            self.text[place] = self.text.get(place, '') + data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def sections(self):
        return [attributes['id'] for attributes in self.of('section')]

    @property
    def data(self):
        return json.loads(self.text['script', 'data'])


def check_alone(page):
    """Nothing is fetched, nothing is run but what the package holds."""
    for tag, attributes in page.elements:
        for name in ('src', 'href', 'data', 'action', 'poster', 'srcset'):
            value = attributes.get(name, '')
            assert not value or value.startswith(('data:', '#')), (tag, attributes)
        assert not [name for name in attributes if name.startswith('on')], (tag, attributes)
    assert len(page.of('script')) == 2
    assert len(page.of('style')) == 1
    assert all(image['src'].startswith('data:image/jpeg;base64,') and image['alt'] for image in page.of('img'))
    ids = [attributes['id'] for _, attributes in page.elements if 'id' in attributes]
    assert len(ids) == len(set(ids))
    policy = next(meta['content'] for meta in page.of('meta') if 'http-equiv' in meta)
    assert "default-src 'none'" in policy


def test_a_page_needs_nothing_else_and_names_do_no_harm(write_run):
    scores, labels = [0.9, 0.8, 0.3, 0.2, 0.1, 0.95], [1, 0, 1, 0, 0, 1]
    root = write_run({'stage1': (scores, labels)}, names=HOSTILE)
    page = Page(write_report(root))
    check_alone(page)
    assert page.data['names'] == HOSTILE
    assert page.data['stages'][0]['scores'] == scores
    assert page.data['stages'][0]['defect'] == labels
    assert set(page.data['thumbs']) == set(map(str, range(6)))
    for name in (HOSTILE[0], HOSTILE[2]):
        assert name in page.text['section', 'errors']
    assert page.sections == ['metrics', 'threshold', 'curves', 'errors', 'labels', 'priors', 'training', 'run']


def test_metrics_stand_side_by_side_with_intervals(write_run):
    root = write_run({'stage1': ([0.9, 0.1], [1, 0]), 'stage2': ([0.2, 0.1], [1, 0])})
    text = Page(write_report(root)).text['section', 'metrics']
    assert 'stage1,\ntest' in text
    assert 'stage2,\ntest' in text
    assert text.count('1.000\n(0.125 to 0.875)') == 2
    assert 'Not calibrated: no threshold was chosen on validation data, and 0.5 is a guess.' in text
    assert 'Calibrated:' not in text


def test_the_aim_of_a_threshold_and_what_is_certain_are_said_wherever_it_shows(write_run):
    root = write_run({'stage1': ([0.9, 0.4, 0.1], [1, 1, 0])}, threshold=0.7)
    record = json.loads((root / 'metrics.json').read_text())
    aim = dict(threshold_calibrated=1, threshold_aim='at most 2 % of defects missed', miss_rate_high=0.975)
    record['stage1']['test'] |= aim
    (root / 'metrics.json').write_text(json.dumps(record))
    page = Page(write_report(root))
    said = 'chosen on validation data for at most 2 % of defects missed'
    assert f'the threshold was {said}' in page.text['section', 'metrics']
    assert 'Not calibrated' not in page.text['section', 'metrics']
    assert '0.975' in page.text['section', 'metrics']
    assert said in page.text['section', 'errors']
    assert page.data['stages'][0]['origin'] == said


@pytest.mark.parametrize(('labels', 'only'), [([0, 0, 0], 'good'), ([1, 1, 1], 'defective')])
def test_one_class_has_a_sentence_instead_of_curves(write_run, labels, only):
    page = Page(write_report(write_run({'stage1': ([0.9, 0.5, 0.1], labels)})))
    check_alone(page)
    assert f'All 3 test images are {only}' in page.text['section', 'threshold']
    assert 'curves' not in page.sections
    assert not page.data['stages'][0]['both']


def test_kinds_without_a_good_class(write_run):
    root = write_run({'stage1': ([0.9, 0.1], [1, 0])})
    (root / 'stage1/test_scores.csv').write_text(
        'sample_idx,img_path,label,p0,p1,p2\n0,a.png,2,0.1,0.2,0.7\n1,b.png,0,0.8,0.1,0.1\n'
    )
    (root / 'metrics.json').write_text('{"stage1": {"test": {"macro_AP": 1.0, "accuracy": 1.0, "num_images": 2}}}')
    page = Page(write_report(root))
    check_alone(page)
    assert page.sections[:3] == ['metrics', 'threshold', 'classes']
    assert 'no threshold to move' in page.text['section', 'threshold']
    assert 'class 2' in page.text['section', 'classes']
    assert 'Every image is called what it is.' in page.text['section', 'classes']
    assert 'calibrated' not in page.text['section', 'metrics']  # where there is no threshold


def test_the_most_certain_confusions_of_kinds_come_first(write_run):
    root = write_run({'stage1': ([0.9, 0.1], [1, 0])})
    (root / 'stage1/test_scores.csv').write_text(
        'sample_idx,img_path,label,p0,p1,p2\n0,a.png,2,0.5,0.2,0.3\n1,b.png,0,0.1,0.9,0\n2,c.png,1,0,1,0\n'
    )
    said = Page(write_report(root)).text['section', 'classes']
    assert 'The most certain of 2 confusions:' in said
    first, second = said.index('b.png: class 0, called class 1, 0.90'), said.index('a.png: class 2, called class 0')
    assert first < second
    assert 'c.png' not in said


def test_images_that_are_gone_leave_a_word(write_run):
    page = Page(write_report(write_run({'stage1': ([0.9, 0.1], [0, 1])}, images=False)))
    check_alone(page)
    assert 'file not found' in page.text['section', 'errors']
    assert 'checkpoint' in page.text['section', 'run'].lower()
    assert not any(page.data['thumbs'].values())


def test_a_run_that_was_not_tested(tmp_path):
    (tmp_path / 'state.json').write_text('{"stages": {"stage1": {"config": "x"}}}')
    page = Page(write_report(tmp_path))
    check_alone(page)
    assert 'No stage has been tested yet.' in page.text['section', 'metrics']


def test_a_failure_to_draw_is_a_warning_with_the_reason(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(report, 'print_log', lambda text, **_: said.append(text))
    assert try_report(tmp_path) is None
    assert 'not the work directory of a run' in said[0]
    assert not (tmp_path / 'report.html').exists()


def test_a_section_that_fails_leaves_the_others(write_run, monkeypatch):
    root = write_run({'stage1': ([0.9, 0.1], [1, 0])})

    def fail(*_):
        raise KeyError('<odd>')

    monkeypatch.setattr(report, 'priors_section', fail)
    page = Page(write_report(root))
    check_alone(page)
    assert 'This could not be drawn: KeyError, <odd>.' in page.text['section', 'priors']
    assert 'Average precision' in page.text['section', 'metrics']


def test_a_thousand_images_make_a_small_file(write_run):
    random = np.random.default_rng(0)
    labels = random.random(1000) < 0.2
    scores = np.where(labels, random.beta(5, 2, 1000), random.beta(2, 5, 1000))
    path = write_report(write_run({'stage1': (scores.tolist(), labels.astype(int).tolist())}))
    thumbs = Page(path).data['thumbs']
    assert len(thumbs) == 80
    alarms = np.flatnonzero(~labels & (scores >= 0.5))
    assert len(alarms) > 40
    assert {str(alarms[scores[alarms].argmin()]), str(alarms[scores[alarms].argmax()])} <= set(thumbs)
    assert path.stat().st_size < 1_000_000


def test_names_are_as_short_as_they_tell_apart():
    assert short_names(['/d/a/1.png', '/d/b/1.png']) == {'/d/a/1.png': 'a/1.png', '/d/b/1.png': 'b/1.png'}
    assert short_names(['/d/a/1.png']) == {'/d/a/1.png': '1.png'}
    assert short_names([]) == {}


@pytest.mark.parametrize('later', [0.75, 0.875, 1.0])
def test_a_first_stage_that_validation_data_prefer_is_named(write_run, later):
    root = write_run({name: ([0.2, 0.9], [0, 1]) for name in ('stage1', 'stage2_unguided', 'stage2')})
    metrics = json.loads((root / 'metrics.json').read_text())
    for splits, score in zip(metrics.values(), (0.875, 0.5, later), strict=True):
        splits['val'] = splits['test'] | dict(AP=score)
    (root / 'metrics.json').write_text(json.dumps(metrics))
    sentence = 'On validation data stage1 is better (AP 0.875) than what came after it (0.750).'
    assert (sentence in write_report(root).read_text()) == (later == 0.75)
    assert (sentence in summary(metrics, root)) == (later == 0.75)


BAD = '<b>"&\'</script>'


def test_all_that_comes_from_a_run_is_escaped_wherever_it_stands(write_run):
    for html in (
        page.table([BAD], [[BAD, BAD]], BAD), page.details(BAD, ''), page.note(BAD), page.sentence(BAD),
        page.picture(None, BAD, BAD, BAD), page.picture('data:', BAD, BAD), page.tiles([(None, BAD, BAD)]),
        page.case(BAD, BAD, [(BAD, None, BAD)]), page.as_json(BAD).replace('<', '<b>'),
        page.render(BAD, '', [], {}).decode().partition('<style')[0],
    ):  # fmt: skip
        assert '<b>' not in html
        assert BAD not in html
        assert '</script>' not in html
    run = read_run(write_run({'<b>': ([0.9, 0.1], [1, 0])}))
    run.stages[0].config_text, run.stages[0].curves = BAD, dict(loss={1: 1.0})
    for html in (facts_section(run, Splits(run)), training_section(run)):
        assert '<b>' not in html


def points_of(html):
    """The lines of the charts in units of their axes."""
    for line in re.findall(r'<polyline [^>]*points="([^"]+)"', html):
        x, y = np.array([point.split(',') for point in line.split()], float).T
        yield (x - LEFT) / (WIDTH - RIGHT - LEFT), (HEIGHT - BOTTOM - y) / (HEIGHT - BOTTOM - TOP)


def test_curves_are_those_of_the_log_odds(write_run):
    root = write_run({'stage1': ([0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 0, 1, 0])})
    run = read_run(root)
    test = run.stages[0].test
    test.scores = np.ones(5)  # of certain ones float32 leaves no order
    html = curves_section(run)
    assert f'stage1, AP {functional.average_precision(test.log_odds, test.labels):.3f}' in html
    assert f'stage1, area {functional.auroc(test.log_odds, test.labels):.3f}' in html
    (recall, precision), (alarms, hits) = points_of(html)
    for found, expected in (
        ((recall, precision), functional.precision_recall(test.log_odds, test.labels)),
        ((alarms, hits), functional.roc_curve(test.log_odds, test.labels)),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.fixture
def judged(write_run):
    """Two stages, judged at 0.6: by the second one, two false alarms and three misses, and one part just at it."""
    scores, labels = [0.9, 0.7, 0.2, 0.1, 0.3, 0.4, 0.5, 0.6], [0, 0, 0, 0, 1, 1, 1, 1]
    return write_run({'stage1': (scores[::-1], labels), 'stage2': (scores, labels)}, threshold=0.6)


def test_the_worst_errors_come_first_at_the_threshold_that_was_recorded(judged):
    said = Page(write_report(judged)).text['section', 'errors']
    assert 'Worst false alarms, 2 of 2' in said
    assert 'Worst misses, 3 of 3' in said
    assert 'A sample of hits, 1 of 1' in said  # a score at the threshold is called defective
    places = [said.index(f'part{number}.png') for number in (0, 1, 4, 5, 6, 7)]
    assert places == sorted(places)


def test_the_page_begins_with_the_errors_and_the_stage_that_are_shown(judged):
    page = Page(write_report(judged))
    assert '2 false alarms and 3 misses at a threshold of 0.600' in page.path.read_text()
    assert page.data['shown'] == 1
    assert [stage['threshold'] for stage in page.data['stages']] == [0.6, 0.6]


def test_rows_of_a_confusion_are_the_true_classes(write_run):
    root = write_run({'stage1': ([0.9, 0.1], [1, 0])})
    (root / 'stage1/test_scores.csv').write_text(
        'sample_idx,img_path,label,p0,p1,p2\n0,a.png,2,0.8,0.1,0.1\n1,b.png,2,0.8,0.1,0.1\n2,c.png,1,0.1,0.8,0.1\n'
    )
    html = write_report(root).read_text()
    table = html[html.index('Confusion of stage1') :]
    assert '<th scope="row">class 2</th><td>2</td><td>0</td><td>0</td>' in table


def test_masks_are_counted_of_defective_images():
    class Data:
        metainfo = dict(classes=('good', 'defect'))

    infos = {
        str(i): dict(gt_label=label, mask_path=mask) for i, (label, mask) in enumerate([(0, 'a'), (1, 'b'), (1, None)])
    }
    assert _counts(infos, Data) == ['3', '1', '2', '1']
