"""Which messages may not overtake which others of their computation that travel in parts."""

from nodeserver.core.fleetmessages import LimitCpus
from nodeserver.core.messages import (
    CancelJobs,
    CloseComputation,
    ComputationReady,
    ComputationRefused,
    DeclareComputation,
    DropData,
    JobsDone,
    JobsHeld,
    JobsProvisional,
    JobsReturned,
    KeepOutcomes,
    Message,
    OpenComputation,
    ResendLetters,
    ResubmitJobs,
    ShareData,
    SubmitJobs,
)

_HANDOVER = (JobsDone, JobsReturned, JobsHeld)

STAY_BEHIND: dict[type[Message], tuple[type[Message], ...]] = {
    # a job's provisional results arrive in their order, and all before its end (G02, G04)
    JobsProvisional: (JobsProvisional,),
    JobsDone: (JobsProvisional,),
    # what was told to be forgotten must not come afterwards
    DropData: (ShareData,),
    # these say that a handover is complete
    **dict.fromkeys((JobsHeld, ComputationReady, ComputationRefused), _HANDOVER),
    # nobody has heard of a computation before it is declared or opened
    **dict.fromkeys((SubmitJobs, ResubmitJobs, ShareData), (DeclareComputation,)),
    CancelJobs: (DeclareComputation, SubmitJobs, ResubmitJobs),
    CloseComputation: (DeclareComputation, SubmitJobs, ResubmitJobs, OpenComputation),
    **dict.fromkeys((KeepOutcomes, ResendLetters, LimitCpus), (OpenComputation,)),
}
