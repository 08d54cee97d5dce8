"""The variants that a web page can run."""

# The variants that run in a browser, in the order of choice (docs/browser.md has figures).
WEB_VARIANTS = (
    "int8",  # the smallest download that is quick
    "fp16",  # half of float32's size, as quick and as exact as float32
    "fp32",  # the quickest, but the largest
    "q8",  # several times slower than int8 in WebAssembly, which has no kernel for blocks of 8 bits
    "int4",  # 4 to 10 times slower in WebAssembly, which has no kernel for packed 4 bits
)
