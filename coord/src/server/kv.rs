//! The key-value service.

use tonic::{Request, Response, Status, async_trait};

use super::{
    context::Context,
    status::{mismatch, of_request},
};
use crate::{
    machine::{
        Command, Response as Applied, check_delete_range, check_put, check_range, check_txn, is_read_only,
        is_serializable,
    },
    pb::etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
        PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, kv_server::Kv,
    },
};

#[async_trait]
impl Kv for Context {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let _admitted = self.admit()?;
        let range = request.into_inner();
        check_range(&range).map_err(|error| of_request(&error))?;
        let mut response = self.read(range.serializable, move |machine| machine.range(&range)).await?;
        response.header = self.fill(response.header);
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let _admitted = self.admit()?;
        let put = request.into_inner();
        check_put(&put).map_err(|error| of_request(&error))?;
        let Applied::Put(mut response) = self.propose(Command::Put(put)).await? else {
            return Err(mismatch());
        };
        response.header = self.fill(response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let _admitted = self.admit()?;
        let delete = request.into_inner();
        check_delete_range(&delete).map_err(|error| of_request(&error))?;
        let Applied::DeleteRange(mut response) = self.propose(Command::DeleteRange(delete)).await? else {
            return Err(mismatch());
        };
        response.header = self.fill(response.header);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let _admitted = self.admit()?;
        let txn = request.into_inner();
        check_txn(&txn).map_err(|error| of_request(&error))?;
        let mut response = if is_read_only(&txn) {
            // What only reads needs no place in the log.
            self.read(is_serializable(&txn), move |machine| machine.txn(&txn)).await?
        } else {
            let Applied::Txn(response) = self.propose(Command::Txn(txn)).await? else {
                return Err(mismatch());
            };
            response
        };
        response.header = self.fill(response.header);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let Applied::Compact(mut response) = self.propose(Command::Compact(request.into_inner())).await?
        else {
            return Err(mismatch());
        };
        response.header = self.fill(response.header);
        Ok(Response::new(response))
    }
}
