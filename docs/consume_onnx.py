"""Runs an exported model with onnxruntime, numpy and OpenCV: python consume_onnx.py MODEL.onnx IMAGE ..."""

import json
import sys

import cv2
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
facts = session.get_modelmeta().custom_metadata_map
classes, threshold = json.loads(facts['classes']), json.loads(facts['threshold'])
names = [output.name for output in session.get_outputs()]

for path in sys.argv[2:]:
    image = cv2.imread(path)  # BGR, 8 bits, upright, without alpha, of any size
    if image is None:
        sys.exit(f'{path}: not an image')
    found = dict(zip(names, session.run(None, {'images': image[None]}), strict=True))  # or N x H x W x 3
    score, probabilities = found['score'][0], found['probabilities'][0].astype(float)
    if threshold:  # class 0 is good
        defective = (score := probabilities[1:].sum() / probabilities.sum()) >= threshold['value']  # in float64
        label = classes[1 + probabilities[1:].argmax() if defective else 0]
    else:
        label = classes[probabilities.argmax()]
    print(f'{path}: {label} {score:.4f}')
    if 'map' in found:  # 0 to 1, as large as the network sees the image; drawn into this folder
        heat = cv2.resize(found['map'][0], image.shape[1::-1])
        red = cv2.applyColorMap((255 * heat.clip(0, 1)).astype(np.uint8), cv2.COLORMAP_JET)
        cv2.imwrite(f'{path.split("/")[-1]}.map.png', cv2.addWeighted(image, 0.6, red, 0.4, 0))
