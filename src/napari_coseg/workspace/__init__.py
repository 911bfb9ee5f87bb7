"""The workspace: a folder that keeps labels, regions, table, classes and what was reviewed.

Reading, as fine-tuning does (touches no file, works on a folder that is being written)::

    from napari_coseg.workspace.folder import open_workspace

    with open_workspace("colon.coseg") as workspace:
        for entry in workspace.entries:               # one an image
            entry.image                               # ImageReference: name, axes, path, content
            path = entry.find_image()                 # or raises ImageNotFound
            saved = entry.load()                      # Saved, with the journal's edits
            saved.labels, saved.regions, saved.table  # int (y, x), uint8 or None
            saved.reviewed.ids                        # objects marked as reviewed
            saved.reviewed_objects()                  # bool (y, x): pixels of all objects that are
            saved.reviewed_area("objects")            # bool (y, x): where objects are reviewed
            saved.reviewed_area("regions")            # bool (y, x): and where regions are
            saved.classes, saved.region_classes, saved.pixel_size_um, saved.provenance
            entry.offset                              # of the labels' first pixel in the image

Writing, as the dock widget does::

    workspace = create_workspace("colon.coseg")       # or open_workspace(..., write=True)
    entry = workspace.add(reference_of(image, path, workspace.path), saved)
    writer = workspace.writer(entry)                  # one thread
    writer.record_edit(edit)                          # made; edit.inverse() for one taken back
    writer.flush()                                    # all is on the disk, or a CosegError
    workspace.close()

On the disk::

    workspace.json                what this folder is
    lock                          held while somebody writes
    entries/0001/
        entry.json                image, classes, pixel size, provenance, and the generation g
        labels.zarr, regions.zarr zarr 3, one file a chunk
        objects-<g>.csv           the object table
        reviewed-<g>.json         objects, and areas for objects and for regions, as runs of pixels
        journal-<n>.bin           n = g, g + 1, ...: what changed since
        image.npy                 only of an image that is in no file

A journal's records say what pixels and rows *become*, so replaying them over chunks that have some
of them already gives the same: folding the journal into the arrays needs no transaction but that
`entry.json` is replaced last, in one step. Nothing is pickled, every size is checked before memory
is taken, and no path but the image's leads out of the folder, which holds no links.
"""
