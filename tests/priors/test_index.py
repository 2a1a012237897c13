import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time

import numpy as np
import pytest

from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore
from kgl_mm.priors.folder import Folder
from kgl_mm.priors.index import Index

from .conftest import filled, some_map

FORK = multiprocessing.get_context('fork')


def state(root):
    """All that a store says of its maps, as somebody who opens it sees it."""
    store = PriorStore(root)
    return {(layer, key): store.entry(key, layer) for layer in store.layers() for key in store.keys(layer)}


def in_child(function, *args):
    process = FORK.Process(target=function, args=args, daemon=True)
    process.start()
    return process


def ended(child):
    child.join(60)
    assert child.exitcode is not None


def test_a_kill_between_rename_and_line_loses_nothing(tmp_path, monkeypatch):
    filled(tmp_path, ['a', 'b'])
    with monkeypatch.context() as patch:
        patch.setattr(Index, 'append', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        for key in ('b', 'c'):
            with pytest.raises(KeyboardInterrupt):
                PriorStore(tmp_path).write(key, some_map(9), quality=9)
    store = PriorStore(tmp_path)
    assert 'c' in store
    for key in ('b', 'c'):
        assert store.entry(key)['quality'] == 9
        np.testing.assert_allclose(store.read(key), some_map(9), atol=1e-4)
    assert str(store.verify()) == '3 as written'
    store.compact()
    assert PriorStore(tmp_path).keys() == ['a', 'b', 'c']
    assert store.entry('b')['quality'] == 9


def test_a_journal_cut_anywhere_and_garbage_lose_nothing(tmp_path):
    filled(tmp_path, ['a', 'b'])
    expected = state(tmp_path)
    (journal,) = (tmp_path / 'journal').iterdir()
    whole = journal.read_bytes()
    for end in range(len(whole)):
        journal.write_bytes(whole[:end])
        store = PriorStore(tmp_path)
        assert set(store.keys()) <= {'a', 'b'}
        assert {('evidence', key): store.entry(key) | {'stamp': 0} for key in 'ab'} == {
            place: entry | {'stamp': 0} for place, entry in expected.items()
        }
    for garbage in (b'', b'\xff\0', b'{}\n[]\n1\n{"key": "../x", "layer": "evidence", "size": [1, 1]}\n', whole[::-1]):
        journal.write_bytes(garbage + whole[100:])
        (tmp_path / 'manifest.jsonl').write_bytes(garbage)
        PriorStore(tmp_path).rebuild()
        assert state(tmp_path) == expected
        (tmp_path / 'journal').mkdir(exist_ok=True)
    for name in ('manifest.jsonl', 'journal'):
        shutil.rmtree(tmp_path / name) if name == 'journal' else (tmp_path / name).unlink()
    PriorStore(tmp_path).compact()
    assert state(tmp_path) == expected


def test_kills_while_writing(tmp_path):
    """A process that writes versions of maps is killed at eight moments; each map is whole, and of one version."""
    keys = [f'folder/{i}' for i in range(20)]

    def write(first):
        store = PriorStore(tmp_path)
        for version in range(first, 10**6):
            for key in keys:
                store.write(key, np.full((30, 30), version), version=version)

    seen = dict.fromkeys(keys, 0)
    for kill in range(8):
        child = in_child(write, max(seen.values()) + 1)
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob('journal/*'))) <= kill:  # until it has written
            assert time.monotonic() < deadline
        time.sleep(random.uniform(0.01, 0.08))
        os.kill(child.pid, signal.SIGKILL)
        ended(child)
        store = PriorStore(tmp_path)
        for key in keys:
            if key not in store:
                continue
            values = np.unique(store.read(key))
            assert values == pytest.approx(store.entry(key)['version'])
            assert values >= seen[key]
            seen[key] = int(values.item())
        report = store.verify()
        assert report[1:] == ([], [], [])
        assert report.ok == sum(key in store for key in keys)
    assert max(seen.values()) > 0
    store.compact()
    assert not [*tmp_path.rglob('*.tmp'), *tmp_path.glob('journal/*')]
    compacted = (tmp_path / 'manifest.jsonl').read_bytes()
    assert store.verify() == PriorStore(tmp_path).verify() == (report.ok, [], [], [])
    PriorStore(tmp_path).rebuild()
    assert (tmp_path / 'manifest.jsonl').read_bytes() == compacted


def test_compact_removes_debris_and_only_that(tmp_path):
    store = filled(tmp_path, ['a', '.a.png.12.tmp'])
    debris = tmp_path / 'evidence/.a.png.123.tmp'
    debris.write_bytes(b'half')
    (tmp_path / 'evidence/notes.tmp').write_bytes(b'mine')
    store.verify()
    assert debris.exists()
    store.compact()
    assert not debris.exists()
    assert (tmp_path / 'evidence/notes.tmp').exists()
    assert store.keys() == ['.a.png.12.tmp', 'a']
    lines = [json.loads(line) for line in (tmp_path / 'manifest.jsonl').read_text().splitlines()]
    assert [line['key'] for line in lines] == store.keys()
    before = state(tmp_path)
    store.compact()
    assert state(tmp_path) == before


def test_writers_at_once_and_after_a_fork_have_journals_of_their_own(tmp_path):
    store = filled(tmp_path, ['parent'])

    def write(letter):
        for i in range(50):
            store.write(f'{letter}/{i}', some_map(i))

    children = [in_child(write, letter) for letter in 'ab']
    store.write('parent 2', some_map())
    for child in children:
        ended(child)
        assert child.exitcode == 0
    assert len(list((tmp_path / 'journal').iterdir())) == 3
    assert len(PriorStore(tmp_path)) == 102
    store.compact()
    assert len(store) == len(PriorStore(tmp_path)) == 102
    assert str(store.verify()) == '102 as written'
    store.write('later', some_map())
    assert len(PriorStore(tmp_path)) == 103


def test_two_processes_begin_layers_at_once(tmp_path):
    def begin(names):
        store = PriorStore(tmp_path)
        for name in names:
            store.begin(name, {})

    children = [in_child(begin, [f'{letter}{i}' for i in range(10)]) for letter in 'ab']
    for child in children:
        ended(child)
    assert len(PriorStore(tmp_path).layers()) == 20


def test_a_line_that_a_full_disk_cut_spoils_no_other(tmp_path, monkeypatch):
    store = filled(tmp_path, ['a'])
    with monkeypatch.context() as patch:
        write = os.write
        patch.setattr(os, 'write', lambda file, data: write(file, data[:50]))
        store.write('b', some_map())
    store.write('c', some_map())
    assert PriorStore(tmp_path).keys() == ['a', 'c']
    PriorStore(tmp_path).compact()
    assert PriorStore(tmp_path).keys() == ['a', 'b', 'c']


def test_thousands_of_maps_take_one_look_each(tmp_path, monkeypatch):
    store = PriorStore(tmp_path)
    map = np.ones((2, 2))
    for i in range(3000):
        store.write(f'{i % 50}/{i}', map)
    store.compact()
    paths = []
    get = Folder.get
    monkeypatch.setattr(Folder, 'get', lambda self, path: paths.append(path) or get(self, path))
    store = PriorStore(tmp_path)
    assert len(store) == len(store.keys()) == 3000
    assert store.entry('7/7')['size'] == [2, 2]
    assert '8/8' in store
    assert paths == [f'{tmp_path}/store.json']
    assert store.verify().ok == 3000
    assert len(paths) == len(set(paths)) == 3001
    del paths[:]
    store.compact()
    assert not paths
    store.read('9/9')
    assert len(paths) == 1


@pytest.mark.slow
def test_time_and_memory_grow_with_the_number_of_maps(tmp_path):
    counts = 12_000, 120_000
    costs = []
    store = PriorStore(tmp_path)
    map = some_map(shape=(32, 32))
    for count in counts:
        for i in range(len(store), count):
            store.write(f'{i % 200}/image {i}.jpg', map, image='0' * 64, quality=0.5)
        store.compact()
        costs.append(measured(tmp_path, count))
        print(f'{count} maps:', {name: round(cost, 2) for name, cost in costs[-1].items()})
    for name in costs[0]:
        assert costs[1][name] < 25 * costs[0][name] + 0.1, name
    assert costs[1]['MB'] * 1e6 < 3000 * counts[1]


def measured(root, count):
    """Seconds of a processor to open, list and verify, and growth of the memory, in a process of its own."""

    def measure(pipe):
        before, costs = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {}
        store = PriorStore(root)
        for name, call in dict(open=lambda: len(store), list=store.keys, verify=store.verify).items():
            start = time.process_time()
            call()
            costs[name] = time.process_time() - start
            costs['MB'] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
        assert store.verify().ok == count
        pipe.send(costs)

    receive, send = FORK.Pipe(duplex=False)
    child = in_child(measure, send)
    costs = receive.recv()
    ended(child)
    return costs


def test_a_compaction_that_fails_loses_no_line(tmp_path, monkeypatch):
    store = filled(tmp_path, ['a'])
    store.compact()
    store.write('b', some_map())
    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
        with pytest.raises(UsageError, match='No space left'):
            PriorStore(tmp_path).compact()
    assert PriorStore(tmp_path).keys() == ['a', 'b']
