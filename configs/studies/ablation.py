# What each part of the method is worth, as arXiv 2605.17780 has it: prior as a channel, injection into the classifier,
# pooling, decay, stopped gradient, saliency. Each variant changes one of them; constant, grad_cam and full_grad are
# those of search_avg.py.
_base_ = './search_avg.py'

model = dict(head=dict(pooling='max_avg', channel='dropout'))

variants = dict(
    paper={},
    no_channel={'model.head.channel': 'none'},
    no_injection={'model.head.inject': False},
    neither={'model.head.channel': 'none', 'model.head.inject': False},
    only_avg={'model.head.pooling': 'avg', 'model.head.seg_pooling': 'avg'},
    only_max={'model.head.pooling': 'max', 'model.head.seg_pooling': 'max'},
    gradient={'model.head.seg_gradient': 1.0},
)
