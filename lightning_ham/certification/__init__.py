"""Proofs that a learned data structure is right for every capacity.

If nodes take finitely many values (``grid``), JOIN, SEARCH and WRITE are finite tables. :func:`certify` finds all
values that nodes can take, and checks every one; :func:`consolidate` trains a model until this succeeds.
``docs/certificates.md`` states the theorem and its proof.
"""

from lightning_ham.certification.certificate import Certificate, read_certificate
from lightning_ham.certification.closure import Limits
from lightning_ham.certification.consolidation import ConsolidationOptions, Round, consolidate
from lightning_ham.certification.search import Refusal, certify, structure_of

__all__ = [
    "Certificate",
    "ConsolidationOptions",
    "Limits",
    "Refusal",
    "Round",
    "certify",
    "consolidate",
    "read_certificate",
    "structure_of",
]
