"""The engine program that finds objects in pictures: RT-DETRv2 by onnxruntime, over HTTP on a socket.

- *request*: one HTTP request, with one picture or several, and what is wanted of them
- *picture*: bytes of a file on their way to a *tensor*, the fixed size that the model sees
- *batch*: tensors of several requests that the model looks at together
- *finding*: a label, a score, and a box in pixels of the picture as it came

A request is read (`server`, `asked`), its pictures are decoded and resized in threads (`pictures`), wait for a batch
(`batches`), go through the model in a thread of its own (`session`), and become findings (`findings`, `drawing`).

It runs as `python -I …/detector --model FILE.onnx --folder FOLDER --host PATH.sock`, needs onnxruntime, numpy, Pillow
and httptools, and of Corral only modules without further packages: any environment with these can run it.
"""
