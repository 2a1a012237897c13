"""The files of this package that can shape what a config computes, found by reading them: nothing is imported."""

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mmengine.config import Config

import kgl_mm

ABOVE = ('apis', 'export', 'inspection', 'report', 'serve', 'study', 'visualization', '.mim')
"""The folders of the package that show results and shape none."""

RUNS = 'kgl_mm.engine.run'


def components(*configs: Config) -> str:
    """The names of this package's components in some configs, such as ``'DefectMetric KnowledgeInjectionHead'``."""
    text = repr([dict(config.to_dict(), variants=None) for config in configs])
    return ' '.join(sorted(set(re.findall(r"'kgl_mm\.(\w+)'", text)) & set(_package().homes)))


@cache
def code_hash(names: str) -> str:
    """A hash of the files that some components and the engine need, by ``import`` or by name in a config of theirs."""
    package = _package()
    waiting, found = [RUNS, *(package.homes[name] for name in names.split() if name in package.homes)], set()
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += package.needs(module)
    lines = (f'{module} {hashlib.sha256(package.texts[module]).hexdigest()}' for module in sorted(found))
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:12]


class _Package:
    """Modules by their dotted names: what is in them, what they import, and which one each component is defined in."""

    def __init__(self, root: Path) -> None:
        self.texts, self.trees, self.homes, self.folders = {}, {}, {}, set()
        for path in sorted(root.rglob('*.py')):
            place = path.relative_to(root)
            if place.parts[0] in ABOVE:
                continue
            name = '.'.join(('kgl_mm', *place.with_suffix('').parts)).removesuffix('.__init__')
            if place.name == '__init__.py':
                self.folders.add(name)
            source = path.read_bytes()
            self.trees[name] = ast.parse(source)
            # and what lies beside it to be read by it
            self.texts[name] = source + b''.join(data.read_bytes() for data in sorted(path.parent.glob('*.yaml')))
            self.homes |= dict.fromkeys(_registered(self.trees[name]), name)

    def needs(self, module: str) -> set[str]:
        """The modules that one imports, anywhere in it, and those of the components that it names in full."""
        found = set()
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {self._home(self._origin(module, node), alias.name) for alias in node.names}
            elif isinstance(node, ast.Constant) and str(node.value).startswith('kgl_mm.'):
                found.add(self.homes.get(node.value.removeprefix('kgl_mm.')))
        return found & set(self.texts)

    def _origin(self, module: str, node: ast.ImportFrom) -> str:
        """What stands behind ``from``, in full."""
        if not node.level:
            return node.module
        parts = module.split('.')
        above = parts[: len(parts) - node.level + (module in self.folders)]
        return '.'.join([*above, *([node.module] if node.module else [])])

    def _home(self, origin: str, name: str) -> str:
        """Where a name comes from: a folder that only hands it on is not what is needed."""
        if f'{origin}.{name}' in self.texts:
            return f'{origin}.{name}'
        if origin in self.folders:
            for node in ast.walk(self.trees[origin]):
                if isinstance(node, ast.ImportFrom) and name in (alias.asname or alias.name for alias in node.names):
                    return self._home(self._origin(origin, node), name)
        return origin


def _registered(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any('register_module' in ast.unparse(x) for x in node.decorator_list):
            yield node.name


@cache
def _package() -> _Package:
    return _Package(Path(kgl_mm.__file__).parent)
