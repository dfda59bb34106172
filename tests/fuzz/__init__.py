"""Files that are mutated and read: whatever a file holds, its reader returns or says in a sentence what is wrong.

``mutations`` changes the bytes of a valid small file, ``kinds`` says which files there are and what reads them,
``trial`` reads one and judges. ``nox -s fuzz`` runs thousands, ``tests/test_fuzz.py`` a seeded part.
"""
