"""Strategies are lists of stages. A stage is a loss weight per segment plus its optimisation.

=============  ==========  ===========================================================
strategy       form        stages
=============  ==========  ===========================================================
``sft``        untagged    full
``sft-tag``    tagged      full
``key-tag``    tagged      key, from the base model
``sftkey-tag`` tagged      full (the same stage as sft-tag's), then key from its weights
=============  ==========  ===========================================================

See arXiv:2512.21017, section 3. The only difference between these presets and custom strategies is that they have a
name here.
"""

from sftkey_dist.strategy.resolve import resolve_strategies, weights_by_id
from sftkey_dist.strategy.stage import Anchor, LossScale, Replay, Stage, Strategy

__all__ = ["Anchor", "LossScale", "Replay", "Stage", "Strategy", "resolve_strategies", "weights_by_id"]
