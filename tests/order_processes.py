"""The processes on which orders are measured, one of each structure and scaling."""

from labcore import Process
from labcore_linear import cld, diag_vp, edm, ou, sigma_t, vp

PROCESSES: dict[str, Process] = {
    "vp": vp(),
    "edm": edm(),
    "sigma_t": sigma_t(),
    "diag_vp": diag_vp(),
    "ou": ou(),
    "cld": cld(),
}
