//! A request on a cacheable route: from its bytes to its question, up the ladder, and into the memo.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response};

use crate::cache::Stored;
use crate::key::{Asked, DeploymentKey, Question, Unreadable, authorization, raw};
use crate::metrics::{Route, Source};
use crate::sync::Environment;

use super::answer::{AnswerBody, Wished};
use super::body::Arriving;
use super::error::RequestError;
use super::ladder::Climb;
use super::{Worker, passthrough};

/// A request on a cacheable route that cannot be read exactly.
struct Stray {
    deployment_key: DeploymentKey,
    environment: Arc<Environment>,
    unreadable: Unreadable,
}

const fn is_flags(route: Route) -> bool {
    matches!(route, Route::FlagsV1 | Route::FlagsV2)
}

impl Worker {
    /// A cacheable route: read the body, look into the memo if that came late, read the question, climb.
    pub(super) async fn question(
        self: &Rc<Self>,
        mut request: Box<Request<Arriving>>,
        route: Route,
        path: &str,
        wished: &Wished,
        began: Instant,
    ) -> Result<(Response<AnswerBody>, Source), RequestError> {
        let mut body = Bytes::new();
        if *request.method() == Method::POST {
            let is_late = request.body().is_late();
            body = self.body_of(&mut request, route).await?;
            if is_late && let Some(response) = self.recall_late(&request, &body) {
                return Ok((response, Source::Hit));
            }
        }
        match self.read(&request, &body, route, path)? {
            Ok(climb) => self.climb(&request, &body, &climb, wished, began).await,
            Err(stray) => {
                let (key, environment) = (&stray.deployment_key, &stray.environment);
                let asked = self.asked(&request, &body, key, environment, route, path);
                let answer = passthrough::unreadable(self, environment, &asked, stray.unreadable);
                let answer = Box::pin(answer).await?;
                let source = answer.source;
                Ok((answer.into_response(wished, is_flags(route)), source))
            }
        }
    }

    /// Reads what a request on a cacheable route asks; [`Stray`] if that cannot be read exactly.
    ///
    /// # Errors
    /// When it has no key, or one that no environment takes.
    fn read(
        self: &Rc<Self>,
        request: &Request<Arriving>,
        body: &Bytes,
        route: Route,
        path: &str,
    ) -> Result<Result<Rc<Climb>, Stray>, RequestError> {
        let deployment_key = authorization::deployment_key(request.headers())
            .and_then(DeploymentKey::new)
            .ok_or(RequestError::MissingKey)?;
        let environment = self
            .proxy
            .environment_of(&deployment_key)
            .ok_or(RequestError::UnknownKey)?;
        let asked = self.asked(request, body, &deployment_key, &environment, route, path);
        let question = if is_flags(route) {
            Question::flags(&asked, &self.proxy.keyer)
        } else {
            Question::vardata(&asked, &self.proxy.keyer)
        };
        let question = match question {
            Ok(question) => question,
            Err(unreadable) => {
                return Ok(Err(Stray {
                    deployment_key,
                    environment,
                    unreadable,
                }));
            }
        };
        let deployment = self.proxy.deployments.get(environment.index, &deployment_key);
        Ok(Ok(Rc::new(Climb {
            worker: Rc::clone(self),
            environment,
            deployment_key,
            deployment,
            route,
            question,
        })))
    }

    fn asked<'r>(
        &'r self,
        request: &'r Request<Arriving>,
        body: &'r Bytes,
        deployment_key: &'r DeploymentKey,
        environment: &'r Environment,
        route: Route,
        path: &'r str,
    ) -> Asked<'r> {
        Asked {
            route,
            path,
            query: request.uri().query(),
            post: *request.method() == Method::POST,
            headers: request.headers(),
            body,
            deployment_key,
            environment: &environment.name,
            ignore_query: &self.proxy.ignore_query,
        }
    }

    /// Takes a question up the ladder, and remembers where its raw parts lead.
    pub(super) async fn climb(
        self: &Rc<Self>,
        request: &Request<Arriving>,
        body: &Bytes,
        climb: &Rc<Climb>,
        wished: &Wished,
        began: Instant,
    ) -> Result<(Response<AnswerBody>, Source), RequestError> {
        let climbed = Rc::clone(climb).answer().await?;
        if let Some(entry) = &climbed.entry {
            self.remember(request, body, climb.question.key, entry);
        }
        let source = climbed.answer.source;
        tracing::debug!(
            route = climb.route.as_str(),
            source = source.as_str(),
            duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
        let flags = climb.question.asks.is_for_flags();
        Ok((climbed.answer.into_response(wished, flags), source))
    }

    /// The answer of a request whose body has come by now, if the memo knows it and its entry is fresh. For one that was
    /// read whole this was tried before.
    pub(super) fn recall_late(
        &self,
        request: &Request<Arriving>,
        body: &[u8],
    ) -> Option<Response<AnswerBody>> {
        let found = self.find_fresh(request, body, Instant::now());
        found.map(|(response, ..)| response)
    }

    /// Lets the memo know where these raw parts lead.
    fn remember(&self, request: &Request<Arriving>, body: &Bytes, key: crate::key::Key, entry: &Arc<Stored>) {
        let mut scratch = self.scratch.borrow_mut();
        raw::write(
            &mut scratch,
            request.method(),
            request.uri(),
            request.headers(),
            body,
        );
        let parts = self.proxy.keyer.fingerprint(&scratch);
        self.memo.borrow_mut().learn(parts, key, entry);
    }
}
