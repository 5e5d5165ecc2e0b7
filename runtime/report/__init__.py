"""Reports: what a model says of images, as one self-contained HTML page. Facts first (`facts`), then the page made of them (`page`)."""
