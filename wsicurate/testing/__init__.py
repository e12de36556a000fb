"""What tests of your own readers, stores, masks, clusterings and encoders need. Public.

* `fake_slide`: a slide in memory that fails where it is asked to.
* `memory_bytes`: a place for a store in memory.
* `tissue_patches`: patches drawn by formula.
* `slide_contract`, `byte_store_contract`, `descriptor_contract`, `mask_contract`, `clustering_contract`: what holds for
  every reader, place, descriptor, mask and clustering, as classes of tests to inherit from under pytest, which they
  import. `docs/extending/` shows how.

For pytest to explain the asserts of a contract, write ``pytest.register_assert_rewrite("wsicurate.testing")`` into
``conftest.py``, before anything of this package is imported.
"""
