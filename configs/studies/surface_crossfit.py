# Maps by networks that have not trained on their image, beside surface_targets.py.
_base_ = './surface_many.py'

crossfit = 5
variants = dict(crossfit={'custom_hooks.0.insist': True})
