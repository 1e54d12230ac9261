"""Which similarity decides: the thresholds that a contract holds for the rates that are asked for."""

from math import expm1, log1p

from steadface.arguments import rate as checked_rate
from steadface.errors import InvalidInput, SteadfaceError, Unsupported
from steadface.evaluation.thresholds import Thresholds, checked_threshold
from steadface.recognizers.contract import Contract

FMR = 1e-3
"""Where no rate is asked for; pictures enrolled under one name have to be one person's at its threshold as well."""


def limit(contract: Contract, fmr: float | None, threshold: float | None) -> tuple[float, float | None]:
    """The threshold of `fmr` (`FMR` if nothing is said) and that rate, or the `threshold` that is given and None.

    Raises SteadfaceError for both at once, for what cannot be, and where the model is not calibrated for the rate.
    """
    if threshold is not None:
        if fmr is not None:
            raise InvalidInput(f"give fmr or threshold, not both (fmr {fmr:g}, threshold {threshold:g})")
        return checked_threshold(threshold), None
    at = checked_rate("FMR", FMR if fmr is None else fmr)
    return _thresholds(contract, at).at(at), at


def limit_of_fpir(contract: Contract, fpir: float, enrolled: int) -> tuple[float, float | None]:
    """`limit` of the FMR at which a stranger is taken for any of the `enrolled` with the chance `fpir`."""
    fmr = -expm1(log1p(-checked_rate("FPIR", fpir)) / max(1, enrolled))
    try:
        return limit(contract, fmr, None)
    except SteadfaceError as error:
        raise type(error)(f"FPIR {fpir:g} among {enrolled} enrolled is FMR {fmr:.3g} each: {error}") from error


def fpir_of(fmr: float | None, enrolled: int) -> float | None:
    """FPIR = 1 - (1 - FMR)^N; None where the threshold was given."""
    return None if fmr is None else abs(expm1(enrolled * log1p(-fmr)))


def alike(contract: Contract) -> float | None:
    """From which cosine on what is enrolled under one name is taken for one person's: the threshold of FMR 1e-3, or of
    the lowest FMR that the model is calibrated for. None where it is not calibrated.
    """
    thresholds = contract.thresholds
    return None if thresholds is None else thresholds.at(max(FMR, thresholds.lowest_fmr))


def doubts(contract: Contract, fmr: float | None) -> tuple[str, ...]:
    """Reasons for care with a threshold of `fmr`: the contract's own, and few people behind it."""
    thresholds = contract.thresholds
    if fmr is None or thresholds is None or not thresholds.rests_on_few_people(fmr):
        return contract.notes
    few = f"the threshold of FMR {fmr:g} rests on {thresholds.people} people, which are few for it"
    return (few, *contract.notes)


def _thresholds(contract: Contract, fmr: float) -> Thresholds:
    if contract.thresholds is None:
        how = " with" if contract.mirror else " without"
        raise Unsupported(
            f"{contract.name} is not calibrated{how} mirror images, so nothing says which similarity stands for FMR "
            f"{fmr:g}; run `steadface calibrate MODEL --images FACES` on faces of known people, or give a threshold"
        )
    return contract.thresholds
