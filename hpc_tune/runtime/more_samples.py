"""Extending a search that has been restored: more samples, with all that its searcher has learned."""

from __future__ import annotations

import itertools
from typing import Any

from ray.tune.search import SearchGenerator
from ray.tune.search.basic_variant import BasicVariantGenerator

__all__ = ["extend"]


def extend(search_algorithm: Any, num_samples: int) -> None:
    """Have a restored searcher suggest until there are ``num_samples`` samples; one that has as many is left alone.

    Ray restores the number of samples with the searcher's state and offers no way to change it.
    """
    if isinstance(search_algorithm, SearchGenerator):
        if num_samples > search_algorithm._total_samples:
            search_algorithm._total_samples = num_samples
            search_algorithm._finished = False
    elif isinstance(search_algorithm, BasicVariantGenerator) and search_algorithm._iterators:
        _extend_variants(search_algorithm, num_samples)


def _extend_variants(generator: BasicVariantGenerator, num_samples: int) -> None:
    variants = generator._iterators[-1]
    more = num_samples - variants.num_samples
    if more <= 0:
        return
    per_sample = generator._total_samples // variants.num_samples  # more than one with grids
    variants.num_samples += more
    variants.num_samples_left += more
    generator._total_samples += more * per_sample
    generator._finished = False
    generator._trial_iter = None
    generator._trial_generator = itertools.chain(*generator._iterators)
