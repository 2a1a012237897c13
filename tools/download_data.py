"""Fetch, check and unpack a public data set: ``python tools/download_data.py ksdd|ksdd2``.

Standard library only. A transfer that was interrupted goes on where it stopped, and what is complete is left alone.
"""

import argparse
import hashlib
import os
import shutil
import stat
import struct
import sys
import time
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

CHUNK = 1 << 20
LICENCE = 'CC BY-NC-SA 4.0 (no commercial use)'


class DataSet(NamedTuple):
    """An archive, where it belongs, and what must be in it: {part: (pattern of images, images, defective ones)}."""

    folder: str
    page: str
    url: str
    size: int | None
    sha256: str
    mask_end: str
    parts: dict[str, tuple[str, int, int]]


# The official host could not be reached where this was written: the addresses follow its pages, the hashes are those
# that another public project gives for the same archives, and neither has been tried on the real server.
DATA_SETS = {
    'ksdd': DataSet(
        'KolektorSDD',
        'https://www.vicos.si/resources/kolektorsdd/',
        'https://go.vicos.si/kolektorsdd',
        None,
        '65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc',
        '_label.bmp',
        {'all': ('kos*/Part?.jpg', 399, 52)},
    ),
    'ksdd2': DataSet(
        'KolektorSDD2',
        'https://www.vicos.si/resources/kolektorsdd2/',
        'https://go.vicos.si/kolektorsdd2',
        853126555,
        'edcdb486809b24f1d17b785e30c52fafc5999554dd5fe18ddf77b61ceb6f36a8',
        '_GT.png',
        {'train': ('train/*[0-9].png', 2331, 246), 'test': ('test/*[0-9].png', 1004, 110)},
    ),
}


class DownloadError(Exception):
    """One sentence for the user."""


def sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def show(done: int, total: int | None, final: bool = False) -> None:
    """A bar on a terminal, one line at the end elsewhere."""
    if sys.stderr.isatty() or final:
        share = f'{"#" * (30 * done // total):<30} {100 * done // total:3d} % of {total / 1e6:.0f} MB' if total else ''
        print(f'\r{share or f"{done / 1e6:.0f} MB"}', end='\n' if final else '', file=sys.stderr, flush=True)


def fetch(url: str, part: Path, size: int | None) -> None:
    """Bring ``part`` to the full length, by a range request where some of it is there already."""
    if not url.startswith(('http://', 'https://')):
        raise DownloadError(f'{url}: not an http(s) address')
    start = part.stat().st_size if part.exists() else 0
    try:
        with urlopen(Request(url, headers={'Range': f'bytes={start}-'} if start else {}), timeout=60) as response:
            if response.status != 206:
                start = 0  # the server sends everything again
            length = response.headers.get('Content-Length')
            total = start + int(length) if length else size
            if size not in (None, total):
                raise DownloadError(
                    f'{url}: offers {total} bytes and not the {size} of the archive, so it is something else'
                )
            done, shown = start, time.monotonic()
            with part.open('ab' if start else 'wb') as file:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    if time.monotonic() - shown > 0.2:
                        show(done, total)
                        shown = time.monotonic()
            show(done, total, final=True)
    except HTTPError as error:
        if error.code == 416:  # nothing follows what is there: its hash decides
            return
        raise DownloadError(f'{url}: the server answers {error.code} {error.reason}') from error
    except (URLError, ConnectionError, TimeoutError, HTTPException, ValueError) as error:
        raise DownloadError(f'{url}: no connection ({error}); run it again to go on') from error
    if total is not None and done < total:
        raise DownloadError(f'{url}: the transfer stopped at {done} of {total} bytes; run it again to go on')


def unpack(archive: Path, folder: Path) -> None:
    """Extract into an empty folder, and nothing at all when a member would land outside or is a link."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as bundle:
            for member in bundle.infolist():
                path = PurePosixPath(member.filename.replace('\\', '/'))
                if (
                    path.is_absolute()
                    or '..' in path.parts
                    or ':' in ''.join(path.parts[:1])
                    or stat.S_ISLNK(member.external_attr >> 16)
                ):
                    raise DownloadError(f'{archive}: refused, since its member {member.filename!r} leads outside')
            bundle.extractall(folder)
    except zipfile.BadZipFile as error:
        raise DownloadError(f'{archive}: not a zip file ({error})') from error


def holds_defect(mask: Path) -> bool:
    """Whether any pixel of an uncompressed BMP or of a PNG is not zero.

    A PNG is not decoded: a row of zeros is a row of zeros under each of its filters, whose kind stands before the row.
    """
    data = mask.read_bytes()
    if data[:2] == b'BM':
        return bool(data[struct.unpack_from('<I', data, 10)[0] :].strip(b'\0'))
    width, _, depth, colour = struct.unpack_from('>IIBB', data, 16)
    packed, at = b'', 8
    while at < len(data):
        size, kind = struct.unpack_from('>I4s', data, at)
        packed += data[at + 8 : at + 8 + size] if kind == b'IDAT' else b''
        at += size + 12
    rows = zlib.decompress(packed)
    stride = 1 + (width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] + 7) // 8
    return any(rows[i + 1 : i + stride].strip(b'\0') for i in range(0, len(rows), stride))


def check_content(data_set: DataSet, folder: Path) -> None:
    for name, (pattern, images, defective) in data_set.parts.items():
        found = sorted(folder.glob(pattern))
        masks = [path.with_name(path.stem + data_set.mask_end) for path in found]
        missing = next((path for path in masks if not path.exists()), None)
        if missing:
            raise DownloadError(f'{missing.relative_to(folder)}: this mask is missing in the archive')
        counted = len(found), sum(map(holds_defect, masks))
        if counted != (images, defective):
            raise DownloadError(
                f'{data_set.folder}, part {name}: the archive holds {counted[0]} images, {counted[1]} of them '
                f'defective, instead of {images} and {defective}'
            )


def is_complete(data_set: DataSet, folder: Path) -> bool:
    return all(len(list(folder.glob(pattern))) == images for pattern, images, _ in data_set.parts.values())


def download(data_set: DataSet, dest: Path) -> Path:
    """Put the data set into ``dest``; its folder appears when everything in it has been checked, or not at all."""
    target, part, unpacked = (dest / f'{data_set.folder}{end}' for end in ('', '.zip.part', '.unpacking'))
    if is_complete(data_set, target):
        return target
    if target.exists():
        raise DownloadError(f'{target}: is there, but incomplete; move it away and run this again')
    dest.mkdir(parents=True, exist_ok=True)
    if not part.exists() or sha256(part) != data_set.sha256:
        fetch(data_set.url, part, data_set.size)
        if sha256(part) != data_set.sha256:
            part.unlink()
            raise DownloadError(
                f'{data_set.url}: what came is not the archive of {data_set.page} (its SHA-256 differs) and was '
                'removed; run this again, or fetch the archive by hand and give its address and hash'
            )
    unpack(part, unpacked)
    first_pattern = next(iter(data_set.parts.values()))[0]
    # archives may or may not have one folder around everything
    root = next((path for path in (unpacked, *unpacked.iterdir()) if any(path.glob(first_pattern))), unpacked)
    check_content(data_set, root)
    root.rename(target)
    shutil.rmtree(unpacked, ignore_errors=True)
    part.unlink()
    return target


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('name', choices=DATA_SETS)
    default = os.environ.get('KGL_DATA_ROOT') or 'data'
    parser.add_argument('--dest', type=Path, default=default, help='folder of the data sets (default: %(default)s)')
    parser.add_argument('--url', help='another address of the same archive')
    parser.add_argument('--sha256', help='the hash of an archive other than the known one')
    args = parser.parse_args(arguments)
    data_set = DATA_SETS[args.name]
    if args.url:
        data_set = data_set._replace(url=args.url)
    if args.sha256:
        data_set = data_set._replace(sha256=args.sha256.lower(), size=None)
    try:
        target = download(data_set, args.dest)
    except DownloadError as error:
        sys.exit(f'{error}.')
    except OSError as error:
        sys.exit(f'{error}; check permissions and free space, then run it again.')
    except KeyboardInterrupt:
        sys.exit('stopped; run it again to go on.')
    counts = ', '.join(f'{name}: {images} images, {bad} defective' for name, (_, images, bad) in data_set.parts.items())
    print(f'{target} ({counts}); {LICENCE}, {data_set.page}')


if __name__ == '__main__':
    main()
