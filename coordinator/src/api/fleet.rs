//! FleetService: the workers, and what they hold.

use std::sync::Arc;

use klp_livepatch::CodestreamFilter;
use klp_proto::convert::{invalid_argument, parse};
use klp_proto::v1;
use klp_proto::v1::fleet_service_server::FleetService;
use tonic::{Request, Response, Status};

use super::{Failed, Shared, wire};
use crate::store;

pub struct Fleet(pub Arc<Shared>);

#[tonic::async_trait]
impl FleetService for Fleet {
    async fn list_workers(
        &self,
        _request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let workers = self.0.farm.workers().await;
        Ok(Response::new(v1::ListWorkersResponse {
            workers: workers.into_iter().map(wire::worker).collect(),
        }))
    }

    async fn list_codestreams(
        &self,
        request: Request<v1::ListCodestreamsRequest>,
    ) -> Result<Response<v1::ListCodestreamsResponse>, Status> {
        let filter: CodestreamFilter =
            parse("filter", &request.into_inner().filter).map_err(|violation| invalid_argument(&[violation]))?;
        let holders = self.0.store.read(|db| store::holders(db).map_err(Failed::from)).await?;
        let selected = holders
            .iter()
            .filter(|(platform, _)| filter.matches(&platform.codestream));
        let info = selected.map(|(platform, workers)| v1::CodestreamInfo {
            platform: Some(platform.into()),
            workers: workers.iter().map(ToString::to_string).collect(),
        });
        Ok(Response::new(v1::ListCodestreamsResponse {
            codestreams: info.collect(),
        }))
    }
}
