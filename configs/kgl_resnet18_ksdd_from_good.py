# Two stages: what a detector of good parts alone finds odd guides a classifier, on however many defects there are.
_base_ = ['./kgl_resnet18_ksdd.py', './_base_/detector.py']

train_on_good = dict(
    batch_size=_base_.good_alone.batch_size,
    dataset=dict(num_positives=0, pipeline=[*_base_.load, *_base_.flips, *_base_.pack]),
    sampler=_base_.good_alone.sampler,
)
stages = dict(
    _delete_=True,
    stage1=dict(**_base_.from_good, train_dataloader=train_on_good),
    stage2=dict(),
)
