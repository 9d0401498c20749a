"""All exceptions of the project as a tree, and `UserError`, for mistakes in the user's input.

Each line names the module, the boundary that failed, and the code that catches the exception. A name with an underscore
never leaves its module. Any other exception is a defect of the program.

    ValueError
        UserError (datasets/errors.py): the user's input; the command line, which prints it and exits with code 2
            RewardError (rewards/errors.py): the code of a reward; the command line, as any UserError
                OutOfBoundsError (rewards/errors.py): a score outside [0, 1]; `rewards check`, which reports it
            UnlearnableError (policy_training/reward_models/training.py): attempts that teach a reward model nothing;
                the main job, which goes on without one
            UnstableTrainingError (datasets/errors.py): a training that the stability guard gave up; `train`, which
                saves the best weights and then lets it pass
            PeerFailedError (datasets/errors.py): another process of a training that runs in several; the command line,
                which prints it in the main process alone
            TooManyLostError (evaluators/evaluation/sweeps.py): the infrastructure of one policy's attempts;
                `regrade evaluate`, which continues with the other policies
            ProbeError (evaluators/scoring/own_probes.py): the code of a user's own probe; the command line, as any
                UserError
            UnknownTaskError (policy_training/serving/service.py): the task of a request; the reward server, which
                answers 404
            TooManyAnswersError (policy_training/serving/service.py): the size of a request; the reward server, which
                answers 413
            RunBusyError (datasets/errors.py): another process writes into a run; a study, which takes another
                cell
            UnusableOptionsError (evaluators/task_curation/baseline_workers.py): the repository's options for pytest;
                the cache of baselines, which runs the tests again without those options
        PatchError (datasets/errors.py): the text of a patch, or its application; every reader of a patch
        DoubledKeyError (datasets/json_text.py): a key that occurs twice in JSON; every reader, which refuses the text
        NoLiteralError (evaluators/hardening/literals.py): a value that cannot be written as a literal; the generator
            of tests and of hard-coded answers, which leaves it out
        TestCopyError (evaluators/verification/parsed_tests.py): the parsing of a test file; the tripwires, which
            omit the tests of that file
    OSError
        ToolStoppedError (datasets/limited_processes.py): git or ruff, killed from outside or hanging; the scorer, which
            retries and then leaves unscored
    RuntimeError
        SandboxError (evaluators/sandboxes/base.py): a sandbox; the scorer, which retries and then leaves unscored
            ImageUnavailableError (evaluators/execution/image_environments.py): a task's image, which can't be started
                here; the scorer, as any SandboxError
            NoNodeError (evaluators/scoring/ray_scorer.py): a cluster that has had no node for minutes; the scorer of
                that cluster, which leaves unscored
        WorkerDiedError (evaluators/execution/worker.py): the worker in a sandbox; the scorer, which retries and then
            leaves unscored or, if the candidate killed it each time, scores low
        StaleExtensionError (evaluators/execution/native_code.py): the build of a compiled extension, stale after a
            patch; the gatherer, which leaves unscored
        ScanStoppedError (evaluators/scoring/static_workers.py): a static probe that does not end; the pool of their
            processes, which blames the patch or the base
        OutOfTimeError (datasets/limited_calls.py): a call of a user's code that does not end; the reward or the probe,
            whose error names it
        RuffError (evaluators/static/ruff.py): ruff's process; the lint probes, which omit that file or rule
        ToolMistakeError (policy_training/environments/edited_tree.py): an agent's use of a tool; the running episode,
            which makes it the observation
        MalformedMessageError (policy_training/policies/harmony.py): tokens of a policy that are no messages; its
            episode, which makes it the observation
        UnscoredError (policy_training/adapters/configured.py): an answer that stays unscored, where no value
            says so; the trainer, which stops its step
        UnavailableError (policy_training/serving/job_queue.py): the reward server, which is full or stops; the route,
            which answers 503
        ServerError (policy_training/serving/client.py): a reward server without a final verdict, after all posts; the
            caller of `RewardClient`
        LostAttemptError (policy_training/policies/endpoint_requests.py): the server of a model; the connection, which
            retries, and then its policy, which returns a lost rollout

Inside a sandbox, where no other exception of the project is raised:

    Exception
        NoBackendError (evaluators/inside/wheels.py): the build backend of a project; the build, which is skipped
        ExtensionBuildError (evaluators/inside/extensions.py): the build of compiled extensions; the request to build
            them, which reports it
        Reached (evaluators/inside/recording/access_watch.py): no error: a test used the network or files outside of
            its repository; pytest, whose report contains it
    OSError
        NoReportError (evaluators/inside/command_rows.py): the report of a test command, missing or cut; the run of
            that command, which reports it
    BaseException
        UncrossableError (evaluators/inside/remote_calls/plain_values.py): the connection of two processes; the
            process of the tests, so that no test mistakes it for an expected error

Private to a module, and no errors:

    AssertionError
        _PropertyError (rewards/conformance.py): a violation of a rule by a reward; the rule's check, which reports it
    Exception
        _TransientError (policy_training/serving/client.py): an answer of the reward server that says to post again; the
            client, which does
        _ReachedLearningLayersError (policy_training/trainers/frozen_activations.py): the end of the frozen layers;
            the forward pass, which stops there
    BaseException
        _PluginImportError (evaluators/inside/candidates.py): the early import of a plugin of pytest; the import, which
            leaves that package to each candidate
"""

from __future__ import annotations


class UserError(ValueError):
    """An input of the user is wrong or missing.

    The message states the problem, the place, the offending value and the remedy.
    The command-line program prints it as one line and exits with code 2.
    """


class UnstableTrainingError(UserError):
    """The stability guard gave a training up; the model has the best weights of before.

    The message states the last alarm, which weights are in the model, and what to change.
    """


class PeerFailedError(UserError):
    """Another process of a training that runs in several has failed, so this one ends too."""


class RunBusyError(UserError):
    """Another process is writing into the run."""


class PatchError(ValueError):
    """The text is not an applicable patch; the message states the problem, the place and the remedy."""
