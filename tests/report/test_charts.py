import xml.etree.ElementTree as ElementTree

import numpy as np

from kgl_mm.report.charts import HEIGHT, WIDTH, Line, line_chart, thinned


def test_a_chart_is_sound_xml_inside_its_frame():
    lines = [Line('<loss> & "more"', [1, 2, 3], [-2.0, 5.5, 0.0]), Line('one', [2], [1.0], 3)]
    figure = ElementTree.fromstring(line_chart('a <chart>', lines, ('epoch', 'loss')))
    (line,) = figure.iter('polyline')
    points = np.array([point.split(',') for point in line.get('points').split()], float)
    assert (points >= 0).all()
    assert (points <= [WIDTH, HEIGHT]).all()
    assert points[1, 1] < points[2, 1] < points[0, 1]  # up is more
    assert [item.find('i').tail for item in figure.iter('li')] == ['<loss> & "more"', 'one']


def test_constant_values_have_a_chart():
    ElementTree.fromstring(line_chart('x', [Line('a', [1], [0.0])], ('epoch', 'loss')))
    ElementTree.fromstring(line_chart('x', [Line('a', [1, 2], [1e-9, 1e-9])], ('epoch', 'loss')))


def test_long_lines_are_thinned_and_keep_their_ends():
    xs, ys = thinned(range(10_000), range(10_000))
    assert len(xs) == len(ys) <= 600
    assert (xs[0], xs[-1]) == (0, 9999)
