"""The store in the image service: composites, parts, manifests and completed
images are Glance images, see :mod:`splitimage_driver.model.properties`.

::

    store.py       the store itself: records in Glance, contents cached here
    api.py         the image API, whatever carries the requests
    http.py        carries them to a cloud, as openstacksdk logs in there
    transfer.py    contents up and down, verified, retried
    records.py     what is in a manifest image
    publish.py     how two publishers of one recipe meet
    access.py      who sees parts and manifests, and when they go
"""
