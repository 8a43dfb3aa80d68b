"""The store in the image service: composites, parts, manifests and completed
images are Glance images, see :mod:`splitimage_driver.model.properties`.

::

    store.py       the store itself: where the pieces meet
    api.py         the image API, whatever carries the requests
    http.py        carries them to a cloud, as openstacksdk logs in there
    transfer.py    contents up and down, verified, retried
    records.py     what is in a manifest image
    reader.py      records out of Glance, judged by whose they are
    publish.py     records into Glance
    meeting.py     how those who make the same completed image meet
    journal.py     what a session of this host has begun there and not finished;
                   leftovers.py removes that of dead ones
    completed.py   completed images: found, published, pruned
    cache.py       data of images that this host keeps
    places.py      which image has what a digest names
    access.py      who sees parts and manifests; holdings.py: what there is of
                   them; collector.py: when they go
"""
