"""Act on several VMs or containers at once, and report each result."""

import queue
import threading
from concurrent.futures import Future
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple, TypeVar

from xscontainer.cli import exit_codes
from xscontainer.cli.ui.output import complain
from xscontainer.errors import XapiError, XSContainerError
from xscontainer.xapi.session import Session

AT_ONCE = 4
_LOOK = 1.0  # s between two looks for a signal

Item = TypeVar("Item")
Page = TypeVar("Page")
Act = Callable[[Session, Item], Any]
Report = Callable[[Item, Any], None]


def each(session: Session, items: "Sequence[Item]", label: "Callable[[Item], str]", act: "Act[Item]",
         report: "Report[Item]") -> int:
    """Act on each item, on at most 4 at once, and return the exit code of all: see :func:`joint_code`.

    The results and errors are printed in the order of the items.

    :param label: returns the name of an item, for its error.
    :param report: prints the result of an item.
    """
    if len(items) == 1:
        outcomes = [_outcome(lambda: act(session, items[0]))]
    else:
        outcomes = begun(session, items, act)
    codes = []
    for item, outcome in zip(items, outcomes):
        try:
            result = outcome.result()
        except XSContainerError as error:
            complain(error, label(item))
            codes.append(exit_codes.of(error))
        else:
            report(item, result)
            codes.append(exit_codes.DONE)
    return joint_code(codes)


def joint_code(codes: "Sequence[int]") -> int:
    """Return the exit code for several acts: their common one, or 1 if only some failed or for different reasons."""
    return codes[0] if len(set(codes)) == 1 else exit_codes.FAILED if codes else exit_codes.DONE


def begun(session: Session, items: "Sequence[Item]", act: "Act[Item]") -> "List[Future[Any]]":
    """Begin to act on the items. The threads do not keep an interrupted command from ending.

    :param session: each thread uses its login over a connection of its own.
    """
    waiting: "queue.Queue[int]" = queue.Queue()
    outcomes: "List[Future[Any]]" = [Future() for _ in items]
    for number in range(len(items)):
        waiting.put(number)

    def work() -> None:
        own = beside(session)
        try:
            while True:
                number = waiting.get_nowait()
                try:
                    outcomes[number].set_result(act(own, items[number]))
                except BaseException as error:  # noqa: BLE001 - raised where the result is read
                    outcomes[number].set_exception(error)
        except queue.Empty:
            pass
        finally:
            own.close()

    for _ in range(min(AT_ONCE, len(items))):
        threading.Thread(target=work, daemon=True).start()
    return outcomes


def follow(session: Session, items: "Sequence[Item]", label: "Callable[[Item], str]",
           pages: "Callable[[Session, Item], Iterable[Page]]", show: "Callable[[Item, Page], None]") -> int:
    """Show what each item yields as it comes, and return the exit code of all: see :func:`joint_code`.

    :param label: returns the name of an item, for the error that ends it.
    :param pages: yields what is to be shown of an item until that is over. Called in a thread of the item.
    :param show: shows what one item yielded, one at a time.
    """
    news: "queue.Queue[Tuple[Item, Optional[Page], Optional[XSContainerError]]]" = queue.Queue(len(items) * 2)

    def run(item: Item) -> None:
        own = beside(session)
        end: Optional[XSContainerError] = None
        try:
            for page in pages(own, item):
                news.put((item, page, None))
        except XSContainerError as error:
            end = error
        except Exception as error:  # noqa: BLE001 - a thread that ends without a word would keep the command waiting
            end = XapiError(f"It cannot be followed: {error!r}.")
        finally:
            own.close()
        news.put((item, None, end))

    for item in items:
        threading.Thread(target=run, args=(item,), daemon=True).start()
    codes: List[int] = []
    while len(codes) < len(items):
        try:
            # A signal that arrives just before the system call would not interrupt it.
            item, page, end = news.get(timeout=_LOOK)
        except queue.Empty:
            continue
        if page is not None:
            show(item, page)
        elif end is None:
            codes.append(exit_codes.DONE)
        else:
            complain(end, label(item))
            codes.append(exit_codes.of(end))
    return joint_code(codes)


def beside(session: Session) -> Session:
    """Return another connection with the same login, for another thread, which closes it and does not log out."""
    made = Session(session.endpoint, session.timeout)
    made.ref = session.ref
    return made


def _outcome(call: "Callable[[], Any]") -> "Future[Any]":
    made: "Future[Any]" = Future()
    try:
        made.set_result(call())
    except XSContainerError as error:
        made.set_exception(error)
    return made
