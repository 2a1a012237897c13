"""What all processes found, each image once, whatever the sampler gave twice."""

from mmengine.dist import all_gather_object

from kgl_mm.errors import UsageError


def every_image_once(results: list[dict], size: int, metric: str) -> list[dict] | None:
    """The results of all processes in the order of the data set; None where samples have no ``sample_idx``.

    Args:
        results: of this process, each with ``sample_idx`` and ``img_path``.
        size: of the data set.
        metric: its name, for what is wrong.
    """
    gathered = [result for part in all_gather_object(results) for result in part]
    if any(result['sample_idx'] is None for result in gathered):
        return None
    # The parts of a concatenated data set each count from 0, so the index alone does not tell images apart.
    distinct = {(result['sample_idx'], result['img_path']): result for result in gathered}
    if len(distinct) != size:
        raise UsageError(
            f'{len(distinct)} distinct images reached {metric}, but the data set has {size}: evaluate it with '
            'a sampler that visits every image.'
        )
    return [distinct[key] for key in sorted(distinct)]
